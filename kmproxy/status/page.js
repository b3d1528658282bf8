"use strict";
// The page works without this script. With it the facts renew themselves, and a search needs no
// button. It asks this page again, as the browser would, and takes over the parts marked data-live.
(() => {
  const EVERY = 5000, PAUSE = 250, KEY = "kmproxy-refresh";
  const button = document.getElementById("refresh"), lost = document.getElementById("lost");
  let timer, typing, asked = 0, on = true, since = new Date();
  try { on = localStorage.getItem(KEY) !== "off"; } catch { /* storage is not allowed */ }

  const renew = async (only) => {
    const mine = ++asked, url = location.pathname + location.search;
    let fresh;
    try {
      const answer = await fetch(url, { headers: { Accept: "text/html" }, cache: "no-store" });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch (error) {
      if (mine !== asked) return;
      lost.textContent = `kmproxy did not answer (${error.message}). This is the state of ${since.toLocaleTimeString()}.`;
      lost.hidden = false;
      return;
    }
    if (mine !== asked) return;
    since = new Date();
    lost.hidden = true;
    document.title = fresh.title;
    for (const old of document.querySelectorAll("[data-live]")) {
      const now = fresh.getElementById(old.id);
      if (!now || (only && old.id !== only && old.id !== "owners")) continue;
      if (old.contains(document.activeElement) || old.innerHTML === now.innerHTML) continue;
      old.className = now.className;
      old.replaceChildren(...now.childNodes);
    }
  };

  const plan = () => {
    clearTimeout(timer);
    timer = on && !document.hidden ? setTimeout(async () => { await renew(); plan(); }, EVERY) : 0;
  };
  const show = () => {
    button.textContent = on ? "Refresh: on" : "Refresh: off";
    button.setAttribute("aria-pressed", String(on));
    plan();
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    on = !on;
    try { localStorage.setItem(KEY, on ? "on" : "off"); } catch { /* it holds for this page */ }
    show();
    if (on) renew();
  });
  document.addEventListener("visibilitychange", () => { if (on && !document.hidden) renew(); plan(); });
  show();

  for (const form of document.querySelectorAll("form[data-renews]")) {
    const search = () => {
      const query = new URLSearchParams(location.search);
      for (const [name, value] of new FormData(form)) query.delete(name), value && query.set(name, value);
      if (query.get("sort") === "name") query.delete("sort");
      query.delete("page");
      const text = query.toString();
      history.replaceState(null, "", text ? `?${text}` : location.pathname);
      renew(form.dataset.renews);
    };
    form.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(typing); search(); });
    form.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(search, PAUSE); });
  }

  const own = document.querySelector("[data-own-metrics]");
  if (own) {
    const link = document.createElement("a");
    link.href = `http://${location.hostname}:${own.dataset.ownMetrics}/metrics`;
    link.textContent = own.textContent;
    own.replaceChildren(link);
  }
})();
