// The preview beside the editor. Without this script the Preview button does the same.
"use strict";

const form = document.querySelector("form.editor");
const body = form.elements.body;
const title = form.elements.title;
const shownBody = form.querySelector("[data-body]");
const shownTitle = form.querySelector("[data-title]");
let timer = 0;
let latest = 0;
let changed = false;

async function show() {
  const mine = ++latest;
  const data = new FormData();
  data.set("csrf", form.elements.csrf.value);
  data.set("body", body.value);
  const answer = await fetch(form.dataset.preview, { method: "POST", body: data });
  if (answer.ok && mine === latest) shownBody.innerHTML = await answer.text(); // sanitised by the server
}

function later() {
  changed = true;
  clearTimeout(timer);
  timer = setTimeout(show, 250);
}

body.addEventListener("input", later);
title.addEventListener("input", () => {
  changed = true;
  shownTitle.textContent = title.value;
});
form.addEventListener("submit", () => { changed = false; });
window.addEventListener("beforeunload", (event) => { if (changed) event.preventDefault(); });
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "s") {
    event.preventDefault();
    const published = form.querySelector(".state.on");
    form.requestSubmit(form.querySelector(`button[value=${published ? "publish" : "draft"}]`));
  }
});
for (const button of form.querySelectorAll("[data-insert]")) {
  button.addEventListener("click", () => {
    body.setRangeText(`\n\n${button.dataset.insert}\n\n`, body.selectionStart, body.selectionEnd, "end");
    body.focus();
    later();
  });
}
document.documentElement.classList.add("scripted");
