// Keeps #live as the server has it. What the reader opened, typed or focused stays.
"use strict";
(() => {
  const shown = () => document.getElementById("live");
  const every = Number(shown()?.dataset.live || 0);
  if (!every) return;
  const busy = (part) => part.querySelector("details[open]") || !getSelection().isCollapsed;
  async function look() {
    if (document.hidden) return every;
    let answer;
    try {
      answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    } catch {
      return 4 * every; // the server is away; perhaps it comes back
    }
    if (answer.status === 401) return 0; // another server took its place: the page must be opened anew
    if (!answer.ok) return 4 * every;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
    const old = shown();
    if (fresh && fresh.innerHTML !== old.innerHTML) {
      const ended = fresh.dataset.state !== old.dataset.state;
      if (!ended && busy(old)) return every;
      const focused = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      old.replaceWith(fresh);
      if (focused) [...fresh.querySelectorAll("a")].find((a) => a.getAttribute("href") === focused)?.focus();
    }
    return fresh && fresh.dataset.live ? every : 0;
  }
  async function go() {
    const pause = await look();
    if (pause) setTimeout(go, pause);
  }
  setTimeout(go, every);
})();
