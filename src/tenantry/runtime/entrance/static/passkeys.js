// Passkeys: asks the browser to make or to use one, and sends its answer as any form is sent.
"use strict";
{ // what is named here stays here: pages load other scripts, too
const known = window.PublicKeyCredential && PublicKeyCredential.parseCreationOptionsFromJSON;
const asked = async (form) => {
  const reply = await fetch(form.dataset.passkey, {credentials: "same-origin"});
  if (!reply.ok || reply.redirected) throw new Error("Load the page anew, and try again.");
  const options = await reply.json();
  const credential = form.dataset.does === "create"
    ? await navigator.credentials.create({publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options)})
    : await navigator.credentials.get({publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options)});
  return JSON.stringify(credential.toJSON());
};
const said = (error) => ({
  NotAllowedError: "Nothing was chosen, or it took too long.",
  InvalidStateError: "This device has a passkey of yours already.",
  SecurityError: "Passkeys work at the platform's own address alone.",
}[error.name] || error.message);
document.querySelectorAll("form[data-passkey]").forEach((form) => {
  if (!known) return;
  form.hidden = false;
  document.querySelectorAll("[data-no-passkeys]").forEach((note) => { note.hidden = true; });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const fault = form.querySelector("[data-fault]");
    fault.hidden = true;
    try {
      form.elements.answer.value = await asked(form);
      form.submit();
    } catch (error) {
      fault.textContent = said(error);
      fault.hidden = false;
    }
  });
});
}
