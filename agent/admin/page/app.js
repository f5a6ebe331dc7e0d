/* The page: which view is wanted, and when to read the API again. */

import { h } from "./dom.js";
import { listView } from "./list.js";
import { callView } from "./call.js";

const LIVE_MS = 1500;
const QUIET_MS = 10000;

/** Read the API; a reply that is a problem becomes an Error with its words. */
async function read(path) {
  const reply = await fetch(path, { headers: { Accept: "application/json" } });
  if (reply.status === 401) {
    // The token is no longer known: the server shows the sign-in.
    location.reload();
    return new Promise(() => {});
  }
  const body = await reply.json().catch(() => null);
  if (!reply.ok) throw new Error(body?.detail ?? `The server answered ${reply.status}.`);
  return body;
}

const main = document.getElementById("main");
const call = location.pathname.match(/^\/calls\/([^/]+)$/);
const view = call ? callView(decodeURIComponent(call[1]), read) : listView(read);
const message = h("p", { class: "problem", role: "alert" });
main.replaceChildren(message, view.element);

let timer;

/** Show what is known now, and look again soon while a call goes on. */
async function refresh() {
  clearTimeout(timer);
  let isLive = false;
  if (!document.hidden) {
    try {
      isLive = await view.refresh();
      message.textContent = "";
    } catch (error) {
      message.textContent = error instanceof TypeError ? "Trunkline does not answer." : error.message;
    }
  }
  timer = setTimeout(refresh, isLive ? LIVE_MS : QUIET_MS);
}

view.onchange = refresh;
document.addEventListener("visibilitychange", refresh);
refresh();
