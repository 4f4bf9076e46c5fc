// What pages do beyond htmx: copying to the clipboard, and times in the reader's own zone.
"use strict";
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  const before = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = before; }, 1500);
});
document.addEventListener("change", (event) => {
  const name = event.target.dataset.ticks;
  if (name) event.target.form.querySelectorAll(`[type=checkbox][name="${name}"]`).forEach((box) => { box.checked = event.target.checked; });
});
const told = (root) => root.querySelectorAll("time[datetime]").forEach((time) => {
  time.textContent = new Date(time.dateTime).toLocaleString([], {dateStyle: "medium", timeStyle: "short"});
});
document.addEventListener("DOMContentLoaded", () => told(document));
document.addEventListener("htmx:load", (event) => told(event.target));
