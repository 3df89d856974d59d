// What saves the reader reloading: parts that move are fetched anew, and uploads tell how far they are.
"use strict";

// Puts the parts of a fresh page that have the id of a live part in its place.
async function renew() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    if (other && other.innerHTML !== part.innerHTML && !part.contains(document.activeElement)) part.replaceWith(other);
  }
}

let renewing = false;
async function renewOnce() {
  if (renewing || document.hidden) return;
  renewing = true;
  try { await renew(); } catch { /* The worker does not answer: the next turn may find it. */ }
  renewing = false;
}

function watch() {
  const live = document.querySelector("[data-live]");
  if (!live) return;
  if (live.dataset.events) {
    const source = new EventSource(live.dataset.events);
    for (const kind of ["training", "study", "prediction"]) source.addEventListener(kind, async (event) => {
      await renewOnce();
      if (["succeeded", "failed", "cancelled"].includes(JSON.parse(event.data).state)) { source.close(); await renew(); }
    });
  }
  setInterval(() => { if (document.querySelector("[data-live]")) renewOnce(); }, 1000 * Number(live.dataset.live));
}

function uploads() {
  const form = document.querySelector("form[data-upload]");
  if (!form) return;
  const [input, bar, words] = ["input", "progress", "p"].map((name) => form.querySelector(name));
  const send = (file) => {
    const request = new XMLHttpRequest();
    request.open("POST", "v1/datasets?name=" + encodeURIComponent(file.name.replace(/\.(csv|ndjson|jsonl|arrow|feather|parquet|gz|zst)+$/g, "")));
    request.setRequestHeader("content-type", /\.(arrow|feather|parquet)/.test(file.name) ? "application/octet-stream" : /\.(ndjson|jsonl)/.test(file.name) ? "application/x-ndjson" : "text/csv");
    request.upload.onprogress = (event) => {
      bar.hidden = false;
      bar.value = event.loaded / Math.max(event.total, 1);
      words.textContent = bar.value < 1 ? Math.round(100 * bar.value) + " % of " + file.name : "Reading the last rows…";
    };
    request.onload = () => {
      const answer = JSON.parse(request.responseText || "{}");
      if (request.status === 201) location.href = "datasets/" + answer.id;
      else words.textContent = answer.detail || "The upload was refused with status " + request.status + ".";
    };
    request.onerror = () => { words.textContent = "The upload broke off: nothing was created. Try again."; };
    request.send(file);
  };
  form.addEventListener("submit", (event) => { event.preventDefault(); if (input.files[0]) send(input.files[0]); });
  input.addEventListener("change", () => { if (input.files[0]) send(input.files[0]); });
  form.addEventListener("dragover", (event) => { event.preventDefault(); form.classList.add("over"); });
  form.addEventListener("dragleave", () => form.classList.remove("over"));
  form.addEventListener("drop", (event) => {
    event.preventDefault();
    form.classList.remove("over");
    if (event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
  });
}

watch();
uploads();
