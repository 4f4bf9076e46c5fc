// What pages do beyond htmx: copying to the clipboard, times in the reader's own zone, and the command palette.
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
  const form = event.target.form;
  const name = event.target.dataset.ticks;
  if (name) form.querySelectorAll(`[type=checkbox][name="${name}"]`).forEach((box) => { box.checked = event.target.checked; });
  const count = form?.querySelector("[data-count]");
  if (count) count.textContent = `${form.querySelectorAll(`[name="${count.dataset.count}"]:checked`).length} ticked`;
});
const told = (root) => root.querySelectorAll("time[datetime]").forEach((time) => {
  time.textContent = new Date(time.dateTime).toLocaleString([], {dateStyle: "medium", timeStyle: "short"});
});
document.addEventListener("DOMContentLoaded", () => told(document));
document.addEventListener("htmx:load", (event) => told(event.target));

// The palette: Ctrl-K opens it; its list is a page of the server's, of which htmx takes a part.
const palette = () => document.getElementById("palette");
const asked = () => palette().querySelector("input");
let going = false; // Enter was pressed before the list was there
const go = () => {
  const list = palette().querySelector(".goals");
  if (list?.dataset.for !== asked().value.trim()) { going = true; htmx.trigger(asked(), "palette"); return; }
  going = false;
  list.querySelector("a")?.click();
};
const openPalette = (event) => {
  if (!palette() || palette().open) return;
  event.preventDefault();
  asked().value = "";
  palette().showModal();
  htmx.trigger(asked(), "palette");
};
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") { openPalette(event); return; }
  if (!palette()?.open) return;
  const stops = [asked(), ...palette().querySelectorAll(".goals a")];
  const at = stops.indexOf(document.activeElement);
  if (event.key === "Enter" && at === 0) { event.preventDefault(); go(); }
  const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
  if (step && at >= 0) { event.preventDefault(); stops[(at + step + stops.length) % stops.length].focus(); }
});
document.addEventListener("click", (event) => { if (event.target.closest("[data-palette]")) openPalette(event); });
document.addEventListener("htmx:afterSettle", () => { if (going && palette()?.open) go(); });
