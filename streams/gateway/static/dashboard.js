// The dashboard's own script: times in the reader's zone, live updates, charts, and the dialogs of actions.
"use strict";

const page = document.documentElement;
const find = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

/** An element with text (never HTML) or elements in it. */
function make(tag, attributes = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...inside);
  return element;
}

/** What the API answers, or an error whose message is a sentence for people. */
async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { headers: { Accept: "application/json", ...options.headers }, ...options });
  } catch {
    throw new Error("GATEWAY does not answer. Look whether it runs.");
  }
  const said = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) {
    const error = new Error(said?.error?.message ?? `GATEWAY answered with ${response.status}.`);
    error.status = response.status;
    throw error;
  }
  return said;
}

// Times

const forms = {
  clock: { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" },
  full: { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" },
  day: { day: "numeric", month: "short" },
};
const formats = Object.fromEntries(Object.entries(forms).map(([name, form]) => [name, new Intl.DateTimeFormat("en-GB", form)]));
const utc = (date) => date.toISOString().replace("T", " ").replace(/\..*/, " UTC");

function sayLength(seconds) {
  for (const [length, letters] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= length) return `${Math.round(seconds / length)} ${letters}`;
  }
  return `${Math.round(seconds)} s`;
}

/** Put every `time` into the reader's own zone, with UTC on hover. */
function tellTimes(root = document) {
  for (const element of all("time[datetime]", root)) {
    const date = new Date(element.dateTime);
    const form = element.dataset.form ?? "clock";
    const text = form === "ago" ? `${sayLength(Math.max(0, (Date.now() - date) / 1000))} ago` : formats[form].format(date);
    if (element.textContent !== text) element.textContent = text;
    element.title = form === "ago" ? `${formats.full.format(date)}, ${utc(date)}` : utc(date);
  }
}

function makeTime(seconds, form = "clock") {
  return make("time", { datetime: new Date(seconds * 1000).toISOString(), "data-form": form });
}

// Light and dark

function isDark() {
  return page.dataset.theme ? page.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function showTheme() {
  const button = find("#theme");
  button.textContent = isDark() ? "Light" : "Dark";
  button.setAttribute("aria-label", isDark() ? "Light colours" : "Dark colours");
}

function changeTheme() {
  page.dataset.theme = isDark() ? "light" : "dark";
  document.cookie = `theme=${page.dataset.theme}; path=/; max-age=31536000; samesite=strict`;
  showTheme();
  if (charts) drawCharts();
}

// Live: the server says when there is news; then the parts of this page that may change are asked for again

const REFRESH_MILLISECONDS = 5000;
let refreshedAt = Date.now();
let waiting = null;
let reported = false;

function sayLive(state, words) {
  const live = find("#live");
  if (live.dataset.state !== state) live.dataset.state = state;
  if (live.firstElementChild.textContent !== words) live.firstElementChild.textContent = words;
}

function sayBroken(why) {
  sayLive("broken", `Not live: ${why}, as of ${formats.full.format(refreshedAt).slice(-8)}`);
}

function listen() {
  const source = new EventSource("/api/live");
  source.onopen = () => sayLive("live", "Live");
  source.addEventListener("scenarios", () => refreshSoon());
  source.addEventListener("reports", () => { reported = true; refreshSoon(); });
  source.onerror = () => sayBroken("no connection");
  addEventListener("pagehide", () => source.close());
}

function refreshSoon() {
  if (waiting || document.hidden) return;
  waiting = setTimeout(refresh, Math.max(0, refreshedAt + REFRESH_MILLISECONDS - Date.now()));
}

async function refresh() {
  try {
    const response = await fetch(location.pathname + location.search, { headers: { Accept: "text/html" } });
    if (!response.ok) throw new Error();
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of all("[data-live]")) {
      const other = fresh.getElementById(part.id);
      if (other) replace(part, other);
    }
    refreshedAt = Date.now();
    sayLive("live", "Live");
    await Promise.all([loadCharts(reported), ...all("[data-again]").map(loadPart)]);
  } catch {
    sayBroken("GATEWAY answers with an error");
  } finally {
    waiting = null;
    reported = false;
  }
}

/** Put what is new into a part of the page; what is open stays open, and the focus stays where it is. */
function replace(part, fresh) {
  tellTimes(fresh);
  if (part.innerHTML === fresh.innerHTML || find("dialog[open]", part)) return;
  const open = all("details", part).map((each) => each.open);
  const links = all("a, button, summary, [tabindex]", part);
  const place = links.indexOf(document.activeElement);
  const target = place < 0 ? null : document.activeElement.getAttribute("href");
  part.replaceChildren(...fresh.childNodes);
  all("details", part).forEach((each, number) => { each.open = open[number] ?? false; });
  if (place >= 0) {
    const now = all("a, button, summary, [tabindex]", part);
    (now.find((each) => target && each.getAttribute("href") === target) ?? now[place])?.focus({ preventScroll: true });
  }
}

// Parts that take their time are asked for once the page stands

async function loadPart(part) {
  part.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(part.dataset.load, { headers: { Accept: "text/html" } });
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    replace(part, fresh.body);
  } catch {
    part.replaceChildren(make("div", { class: "message failed", role: "alert" }, make("p", {}, "GATEWAY does not answer. Look whether it runs.")));
  }
  part.removeAttribute("aria-busy");
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-reload]");
  if (button) loadPart(find("[data-load]", button.closest(".panel")));
});

// Charts: what the server measured, in this page's colours

let charts = null;
let library = null;

// Styles that the library would write into the page, which the page's policy forbids: those of charts stand in our own
// file, those of maps are not needed. Where it finds an element of these names it leaves them out.
const STYLES = ["plotly.js-style-global", "9f215cf04c5486422605d13261cb87401f4e7763b6296af81e98efbc0130da53"];

/** The charts' library is large, so it is asked for only once the page stands. */
function loadLibrary() {
  library ??= new Promise((resolve, reject) => {
    document.head.append(...STYLES.map((id) => make("meta", { id, class: "no-inline-styles" })));
    const script = make("script", { src: document.body.dataset.plotly });
    script.onload = () => resolve(globalThis.Plotly);
    script.onerror = () => reject(new Error("The charts' library cannot be loaded; the figures stand in the tables."));
    document.head.append(script);
  });
  return library;
}

async function loadCharts(evenIfYoung = true) {
  if (!find("[data-chart]")) return;
  // A point of a long range takes minutes to become another one, so it need not be asked for every few seconds.
  if (!evenIfYoung && charts && Date.now() / 1000 - charts.until < charts.seconds / 4) return;
  const query = new URLSearchParams(location.search).get("range");
  try {
    charts = await ask(`${location.pathname}/charts${query ? `?range=${encodeURIComponent(query)}` : ""}`);
    await drawCharts();
  } catch (error) {
    for (const figure of all("[data-chart]")) if (!figure.dataset.drawn) sayInPlot(figure, error.message, "failed");
    if (charts) sayBroken(error.message);
  }
}

function sayInPlot(figure, words, kind = "") {
  const plot = find(".plot", figure);
  if (figure.dataset.drawn) globalThis.Plotly?.purge(plot);
  delete figure.dataset.drawn;
  for (const name of ["role", "aria-label"]) plot.removeAttribute(name);
  plot.replaceChildren(make("p", { class: `nothing ${kind}`, role: "status" }, words));
}

// A chart is drawn once it comes near what is seen, and anew only while it is there.
const NEAR_PIXELS = 300;
const watching = new IntersectionObserver(() => {
  if (charts) drawSoon().catch(() => {}); // whoever loads the charts says what went wrong
}, { rootMargin: `${NEAR_PIXELS}px` });

function isNear(element) {
  const { top, bottom } = element.getBoundingClientRect();
  return bottom > -NEAR_PIXELS && top < innerHeight + NEAR_PIXELS;
}

let drawing = Promise.resolve();

/** One after the other, so that whoever waits for this waits for all that was begun before. */
function drawSoon() {
  drawing = drawing.catch(() => {}).then(drawNear);
  return drawing;
}

async function drawCharts() {
  for (const figure of all("[data-chart]")) {
    const chart = charts.charts.find((each) => each.name === figure.dataset.chart);
    if (!chart) continue;
    figure.classList.toggle("red", chart.red.length > 0);
    find(".judged", figure).replaceChildren(...chart.judged.map((each) => make("p", {}, each.says)));
    fillTable(figure, chart);
    figure.waits = chart.empty ? null : chart;
    if (chart.empty) sayInPlot(figure, chart.empty);
    else watching.observe(figure);
  }
  await drawSoon();
}

async function drawNear() {
  const figures = all("[data-chart]").filter((figure) => figure.waits && isNear(figure));
  if (figures.length) {
    const plotly = await loadLibrary();
    const colours = readColours();
    for (const figure of figures) {
      const chart = figure.waits;
      if (!chart) continue;
      figure.waits = null;
      const plot = find(".plot", figure);
      if (!figure.dataset.drawn) plot.replaceChildren();
      await plotly.react(plot, traces(chart, colours), layout(chart, colours), { displayModeBar: false, responsive: true });
      plot.setAttribute("role", "img");
      plot.setAttribute("aria-label", `${find("h3", figure).textContent} over time; the figures stand in the table below`);
      figure.dataset.drawn = "yes";
      // Between two charts the browser may answer to its reader.
      await new Promise((resume) => setTimeout(resume));
    }
    performance.mark("charts drawn");
  }
}

/** The page's colours as they come out in light or dark. */
function readColours() {
  const probe = make("span", { hidden: true });
  document.body.append(probe);
  const read = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
  const names = ["ink", "quiet", "line", "card", "accent", "second", "trouble", "watch", "good"];
  const colours = Object.fromEntries(names.map((name) => [name, read(name)]));
  probe.remove();
  return colours;
}

const fade = (colour, share) => colour.replace("rgb(", "rgba(").replace(")", `, ${share})`);
const numberFormats = [
  [/^share/, ",.3~%"], [/^seconds/, ",.3~s"], [/^milliseconds/, ",.0f"], [/^(events|examples)$/, ",.0f"], [/./, ".3~f"],
];
const formatOf = (unit) => numberFormats.find(([pattern]) => pattern.test(unit))[1];

/** Plotly shows times as they are written, so they are written in the reader's zone. */
function local(seconds) {
  const date = new Date(seconds * 1000);
  return new Date(date - date.getTimezoneOffset() * 60000).toISOString().slice(0, -1);
}

/** From where to where values are not missing. */
function stretches(values) {
  const found = [];
  values.forEach((value, place) => {
    if (value === null) return;
    if (found.at(-1)?.[1] === place) found.at(-1)[1] = place + 1;
    else found.push([place, place + 1]);
  });
  return found;
}

function traces(chart, colours) {
  const format = formatOf(chart.unit);
  const found = [];
  if (chart.band.length === 2) {
    // One area for each stretch without a gap: the library would join them across it.
    for (const [from, to] of stretches(chart.band[0].values)) {
      const [low, high] = chart.band.map((line) => ({ x: line.at.slice(from, to).map(local), y: line.values.slice(from, to) }));
      found.push({
        x: [...low.x, ...high.x.reverse()], y: [...low.y, ...high.y.reverse()],
        mode: "lines", line: { width: 0 }, fill: "toself", fillcolor: fade(colours.accent, 0.16), hoverinfo: "skip",
      });
    }
  }
  chart.lines.forEach((line, number) => {
    const lonely = line.values.filter((value) => value !== null).length < 3;
    found.push({
      x: line.at.map(local), y: line.values, name: line.title, mode: lonely ? "lines+markers" : "lines", connectgaps: false,
      line: { color: number ? colours.second : colours.accent, width: number ? 1.6 : 1.9, dash: number ? "dash" : "solid" },
      hovertemplate: `%{y:${format}}<extra>${line.title}</extra>`,
    });
  });
  return found;
}

function layout(chart, colours) {
  const span = charts.until - charts.since;
  const times = { x0: 0, x1: 1, xref: "paper" };
  const shapes = [];
  const annotations = [];
  for (const red of chart.red) {
    shapes.push({ type: "rect", yref: "paper", y0: 0, y1: 1, x0: local(Math.max(red.since, charts.since)), x1: local(charts.until), fillcolor: fade(colours.trouble, 0.1), line: { width: 0 }, layer: "below" });
    if (red.reference !== null) {
      shapes.push({ type: "line", ...times, y0: red.reference, y1: red.reference, line: { color: colours.trouble, width: 1, dash: "dot" } });
      annotations.push({ xref: "paper", x: 0, xanchor: "left", y: red.reference, yanchor: "bottom", text: "before the alarm", showarrow: false, font: { size: 10.5, color: colours.trouble } });
    }
  }
  const groups = [];
  for (const mark of charts.marks) {
    const colour = mark.kind === "rolled_back" || (mark.kind === "alarm" && mark.severity === "page") ? colours.trouble
      : mark.kind === "alarm" ? colours.watch : mark.kind === "promoted" || mark.kind === "cleared" ? colours.good : colours.quiet;
    shapes.push({ type: "line", yref: "paper", y0: 0, y1: 1, x0: local(mark.at), x1: local(mark.at), line: { color: colour, width: 1.2, dash: mark.kind === "alarm" ? "solid" : "dot" } });
    const group = groups.at(-1);
    if (group && mark.at - group.at < span / 24) group.last = mark.number;
    else groups.push({ at: mark.at, first: mark.number, last: mark.number, colour });
  }
  for (const group of groups) {
    const text = group.first === group.last ? `${group.first}` : `${group.first}–${group.last}`;
    annotations.push({ x: local(group.at), yref: "paper", y: 1, yanchor: "bottom", text, showarrow: false, font: { size: 10.5, color: group.colour } });
  }
  const top = Math.max(0, ...chart.lines.flatMap((line) => line.values));
  for (const { low, high } of chart.judged) {
    for (const [bound, words, side] of [[low, "alarm below", "top"], [high, "alarm above", "bottom"]]) {
      // One that lies far above all that was measured would press the line to the ground; the words name it.
      if (bound === null || bound < 0 || bound > 2 * top) continue;
      shapes.push({ type: "line", ...times, y0: bound, y1: bound, line: { color: colours.watch, width: 1, dash: "dot" } });
      annotations.push({ xref: "paper", x: 1, xanchor: "right", y: bound, yanchor: side, text: words, showarrow: false, font: { size: 10.5, color: colours.watch } });
    }
  }
  const axis = { gridcolor: colours.line, zeroline: false, tickfont: { size: 11, color: colours.quiet }, fixedrange: true, automargin: true };
  return {
    margin: { l: 44, r: 8, t: 16, b: 24 }, showlegend: false, hovermode: "x unified", dragmode: false,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, color: colours.ink, size: 12 },
    hoverlabel: { bgcolor: colours.card, bordercolor: colours.line, font: { color: colours.ink, size: 12 } },
    xaxis: { ...axis, type: "date", range: [local(charts.since), local(charts.until)], nticks: 6, showgrid: false, tickformat: span > 2 * 86400 ? "%-d %b" : "%H:%M\n%-d %b", hoverformat: "%-d %b %H:%M" },
    yaxis: { ...axis, rangemode: "tozero", nticks: 5, tickformat: formatOf(chart.unit) },
    shapes, annotations,
  };
}

/** The text alternative: filled once somebody opens it. */
function fillTable(figure, chart) {
  const details = find(".figures", figure);
  details.fresh = () => {
    if (!details.open) return;
    const lines = [...chart.lines, ...chart.band];
    const times = [...new Set(lines.flatMap((line) => line.at.filter((_, place) => line.values[place] !== null)))].sort((one, other) => other - one);
    const say = (value) => value === undefined || value === null ? "no data"
      : /^share/.test(chart.unit) ? value.toLocaleString("en", { style: "percent", maximumFractionDigits: 2 })
      : value.toLocaleString("en", { maximumSignificantDigits: 4 });
    const known = lines.map((line) => new Map(line.at.map((at, place) => [at, line.values[place]])));
    const head = make("tr", {}, make("th", { scope: "col" }, "From"), ...lines.map((line) => make("th", { scope: "col", class: "number" }, line.title)));
    const rows = times.map((at) => make("tr", {}, make("th", { scope: "row" }, makeTime(at, "full")), ...known.map((line) => make("td", { class: "number" }, say(line.get(at))))));
    const caption = make("caption", {}, times.length ? `Means over ${sayLength(charts.seconds)}, in ${chart.unit}, newest first` : chart.empty);
    const table = make("table", {}, caption, make("thead", {}, head), make("tbody", {}, ...rows));
    tellTimes(table);
    find(".scroll", details).replaceChildren(table);
  };
  details.ontoggle = details.fresh;
  details.fresh();
}

// Orders: a dialog says what will happen and asks why; then the order is followed until it is done or refused

const OUTCOME_POLLS = 240;
const OUTCOME_POLL_MILLISECONDS = 500;

function openOrder(button) {
  const dialog = document.getElementById(button.dataset.order);
  if (!dialog) return;
  const version = find("select", dialog);
  if (version && button.dataset.version) version.value = button.dataset.version;
  find("[name=author]", dialog).value ||= localStorage.getItem("author") ?? "";
  dialog.showModal();
}

async function order(form) {
  const fields = new FormData(form);
  const version = fields.get("version");
  const wanted = {
    action: form.dataset.action, scenario: form.dataset.scenario ?? null, version: version ? Number(version) : null,
    author: fields.get("author"), reason: fields.get("reason"),
  };
  localStorage.setItem("author", wanted.author);
  form.reset();
  const what = `${wanted.action}${wanted.version ? ` to version ${wanted.version}` : ""}${wanted.scenario ? ` of ${wanted.scenario}` : " of all scenarios"}`;
  const note = make("div", { class: "message" });
  const tell = (state, ...words) => { note.className = `message ${state}`; note.replaceChildren(make("p", {}, ...words)); };
  find("#ordered").prepend(note);
  tell("pending", make("strong", {}, "Pending: "), `${what} is being ordered…`);
  try {
    const body = JSON.stringify(Object.fromEntries(Object.entries(wanted).filter(([, value]) => value !== null)));
    const given = await ask("/api/actions", { method: "POST", body, headers: { "Content-Type": "application/json" } });
    tell("pending", make("strong", {}, "Pending: "), `${what} is ordered; waiting for LEARN to carry it out…`);
    const came = await follow(given.action_id);
    if (!came) tell("warned", make("strong", {}, "Still pending: "), `LEARN has not answered to ${what}. Look whether it runs; the order stays in Kafka and is carried out once it does.`);
    else tell(came.outcome, make("strong", {}, came.outcome === "done" ? "Done: " : "Refused: "), `${what}. ${came.detail}`);
    refreshSoon();
  } catch (error) {
    tell("failed", make("strong", {}, "Not ordered: "), `${what}. ${error.message} `, ...(error.status === 401 ? [signInLink()] : []));
  }
}

/** What came of an order; null where that is not known in time. */
async function follow(actionId) {
  for (let poll = 0; poll < OUTCOME_POLLS; poll++) {
    try {
      const found = await ask(`/api/actions/${encodeURIComponent(actionId)}`);
      if (found.outcome === "done" || found.outcome === "refused") return found;
    } catch (error) {
      if (error.status !== 404 && error.status < 500) throw error;
    }
    await new Promise((resume) => setTimeout(resume, OUTCOME_POLL_MILLISECONDS));
  }
  return null;
}

const signInLink = () => make("a", { href: `/login?next=${encodeURIComponent(location.pathname)}` }, "Sign in");

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.order) openOrder(button);
  if (button && "close" in button.dataset) button.closest("dialog").close();
});

document.addEventListener("submit", (event) => {
  if (event.target.dataset.action) order(event.target);
  if (event.target.dataset.offset) {
    event.preventDefault();
    sendBack(event.target);
  }
});

/** Send a dead letter back, put right. */
async function sendBack(form) {
  const fields = new FormData(form);
  const tell = (state, ...words) => find(".answer", form).replaceChildren(make("div", { class: `message ${state}` }, make("p", {}, ...words)));
  let value;
  try {
    value = JSON.parse(fields.get("value"));
  } catch (error) {
    return tell("failed", make("strong", {}, "Not sent: "), `it is not JSON yet. ${error.message}`);
  }
  localStorage.setItem("author", fields.get("author"));
  try {
    const wanted = { offset: Number(form.dataset.offset), author: fields.get("author"), reason: fields.get("reason"), value };
    const sent = await ask("/api/dead-letters/republish", { method: "POST", body: JSON.stringify(wanted), headers: { "Content-Type": "application/json" } });
    tell("done", make("strong", {}, "Sent back "), `to ${sent.topic}.`);
  } catch (error) {
    tell("failed", make("strong", {}, "Not sent: "), `${error.message} `, ...(error.status === 401 ? [signInLink()] : []));
  }
}

// Begin

tellTimes();
setInterval(tellTimes, 15000);
showTheme();
find("#theme").addEventListener("click", changeTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { showTheme(); if (charts) drawCharts(); });
document.addEventListener("visibilitychange", () => refreshSoon());
// What was painted first shall not wait for what is drawn after it.
requestAnimationFrame(() => setTimeout(async () => {
  listen();
  await Promise.all([loadCharts(), ...all("[data-load]").map(loadPart)]);
  page.dataset.whole = "yes";
}));
find(`[data-order="${CSS.escape(location.hash.slice(1))}"]:not(:disabled)`)?.click();
