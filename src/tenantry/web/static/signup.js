// Signing up: the proof of work, done in the browser before the form is sent; and the way into the tenant.
"use strict";
const form = document.querySelector("form[data-work]");
const bits = (hash, wanted) => {
  let left = wanted;
  for (const octet of hash) {
    if (left <= 0) return true;
    if (octet >> Math.max(0, 8 - left)) return false;
    left -= 8;
  }
  return true;
};
const solve = async (challenge) => {
  const wanted = Number(challenge.split(".")[0]);
  const encoder = new TextEncoder();
  for (let first = 0; ; first += 256) {
    const tried = Array.from({length: 256}, (_, at) => first + at);
    const hashes = await Promise.all(tried.map((number) => crypto.subtle.digest("SHA-256", encoder.encode(`${challenge}:${number}`))));
    const found = hashes.findIndex((hash) => bits(new Uint8Array(hash), wanted));
    if (found >= 0) return first + found;
  }
};
if (form && window.crypto?.subtle) {
  const answered = solve(form.dataset.work);
  form.addEventListener("submit", async (event) => {
    if (form.elements.answer.value) return;
    event.preventDefault();
    form.querySelector("[data-working]").hidden = false;
    form.elements.answer.value = await answered;
    setTimeout(() => form.requestSubmit()); // a form that is being sent just now sends nothing else
  });
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-take]");
  if (!button) return;
  const field = document.getElementById("slug");
  field.value = button.dataset.take;
  field.dispatchEvent(new Event("input", {bubbles: true}));
  field.focus();
});
document.querySelector("form[data-go]")?.requestSubmit();
document.addEventListener("htmx:afterSettle", () => document.querySelector("form[data-go]")?.requestSubmit());
