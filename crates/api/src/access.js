// Passkeys on the pages: log in, register, approve. Plain functions; nothing from elsewhere.
"use strict";

(() => {
  const toBytes = (text) => {
    const padded = text.replace(/-/g, "+").replace(/_/g, "/");
    return Uint8Array.from(atob(padded), (character) => character.charCodeAt(0));
  };
  const toText = (buffer) => {
    const characters = Array.from(new Uint8Array(buffer), (byte) => String.fromCharCode(byte));
    return btoa(characters.join("")).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  };

  // Relative to where the script is, so that it works below a path of a proxy.
  const base = new URL("..", document.currentScript.src);

  const send = async (method, path, body, csrf) => {
    const headers = { "Content-Type": "application/json" };
    if (csrf) headers["X-CSRF-Token"] = csrf;
    const request = { method, headers, credentials: "same-origin", redirect: "error" };
    if (body !== undefined) request.body = JSON.stringify(body);
    const response = await fetch(new URL(path, base), request);
    const text = await response.text();
    const document = text ? JSON.parse(text) : {};
    if (!response.ok) throw new Error(document.detail || `status ${response.status}`);
    return document;
  };

  const credentials = (ids) => ids.map((id) => ({ type: "public-key", id: toBytes(id) }));

  const sign = async (challenge, rpId, ids) => {
    const answer = await navigator.credentials.get({
      publicKey: {
        challenge: toBytes(challenge), rpId, allowCredentials: credentials(ids), userVerification: "required",
      },
    });
    return {
      id: toText(answer.rawId),
      client_data: toText(answer.response.clientDataJSON),
      authenticator_data: toText(answer.response.authenticatorData),
      signature: toText(answer.response.signature),
    };
  };

  const logIn = async (button) => {
    const options = await send("POST", "api/v1/session/passkey-options", {});
    await send("POST", "api/v1/session/passkey", await sign(options.challenge, options.rp_id, options.passkeys));
    location.assign(new URL(`.${button.dataset.next}`, base));
  };

  const register = async (button) => {
    const csrf = button.dataset.csrf;
    const options = await send("POST", "api/v1/passkeys/options", {}, csrf);
    const name = button.dataset.user;
    const made = await navigator.credentials.create({
      publicKey: {
        challenge: toBytes(options.challenge),
        rp: { id: options.rp_id, name: "Wardroom" },
        user: { id: new TextEncoder().encode(name), name, displayName: name },
        pubKeyCredParams: [-7, -8, -35, -257].map((alg) => ({ type: "public-key", alg })),
        authenticatorSelection: { residentKey: "required", userVerification: "required" },
        excludeCredentials: credentials(options.passkeys),
        attestation: "none",
      },
    });
    await send("POST", "api/v1/passkeys", {
      name: document.getElementById("passkey-name").value || "passkey",
      client_data: toText(made.response.clientDataJSON),
      attestation_object: toText(made.response.attestationObject),
    }, csrf);
    location.reload();
  };

  const approve = async (button) => {
    const id = button.dataset.incident;
    const request = await send("GET", `api/v1/incidents/${id}/approval-request`);
    // What is signed must be the plan that this page shows.
    if (request.plan_sha256 !== button.dataset.plan) throw new Error("the plan is another one now; reload the page");
    const { rp_id: rpId, passkeys } = request.approval;
    const passkey = await sign(request.challenge, rpId, passkeys);
    await send("POST", `api/v1/incidents/${id}/approve`, {
      plan_sha256: request.plan_sha256,
      reason: document.getElementById("passkey-reason").value,
      channel: "page",
      proof: { time: request.time, passkey },
    }, button.dataset.csrf);
    location.reload();
  };

  const start = (id, action) => {
    const button = document.getElementById(id);
    if (!button) return;
    const error = document.getElementById("passkey-error");
    button.addEventListener("click", async () => {
      button.disabled = true;
      error.textContent = "";
      try {
        await action(button);
      } catch (problem) {
        error.textContent = problem.message;
      }
      button.disabled = false;
    });
  };

  start("passkey-login", logIn);
  start("passkey-register", register);
  start("passkey-approve", approve);
})();
