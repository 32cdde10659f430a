"use strict";
// The live page: asks the paths under /v1 and shows what they say. Nothing is loaded from elsewhere.

const $ = (id) => document.getElementById(id);
const LONGEST_ENTROPY = (classes) => Math.log(Math.max(2, classes));
let camera = "", size = null, region = null, drawing = null, editing = false, address = null, collecting = false, came = null;

async function ask(path, options) {
  const answer = await fetch(path, options);
  const text = await answer.text();
  let said = {};
  try { said = text ? JSON.parse(text) : {}; } catch { said = { error: text }; }
  if (!answer.ok) throw new Error(said.error || answer.status + " " + answer.statusText);
  return said;
}

const local = (time) => new Date(time).toLocaleTimeString();
const number = (value) => (value < 0.01 ? value.toPrecision(1) : value.toFixed(2));

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function say(id, work) {
  return work().catch((error) => { $(id).textContent = error.message; });
}

function gauge(id, value, text) {
  $("m-" + id).value = value;
  $("t-" + id).textContent = text;
}

function show(report) {
  const state = $("state"), what = report.label || report.state + (report.reason ? ": " + report.reason : "");
  if (state.textContent !== what) state.textContent = what;
  state.className = "state " + report.state;
  const last = report.last && report.state !== "label" ? "; last known: " + report.last.label + ", " + local(report.last.at) : "";
  $("since").textContent = "since " + local(report.since) + last;
  const answer = report.answer;
  if (answer) {
    gauge("score", answer.score, answer.label + " " + number(answer.score));
    gauge("picture", answer.picture_p, "p = " + number(answer.picture_p));
    gauge("posterior", answer.posterior_p, "p = " + number(answer.posterior_p));
    const share = answer.predictive_entropy_nats / LONGEST_ENTROPY(answer.probabilities.length);
    gauge("entropy", share, answer.predictive_entropy_nats.toFixed(2) + " nats");
    $("why").textContent = answer.decision === "accept" ? "The last answer is accepted." : "The last answer is abstained from: " + answer.reason + ".";
  }
  $("caption").textContent = report.size
    ? report.size.join(" x ") + ", " + local(report.picture_at) + "; " + report.pictures + " pictures, " + report.classified + " classified"
    : report.trouble || "no picture yet";
  if (report.trouble && report.size) $("caption").textContent += "; " + report.trouble;
  size = report.size;
  if (!editing && !drawing) { region = report.region; write(); }
}

function write() {
  const all = region || (size ? [0, 0, size[0], size[1]] : [0, 0, 8, 8]);
  ["rx", "ry", "rw", "rh"].forEach((id, i) => { $(id).value = all[i]; });
  frame(region);
}

function frame(part) {
  const rect = $("frame");
  rect.toggleAttribute("hidden", !part || !size);
  rect.style.display = part && size ? "" : "none";
  if (!part || !size) return;
  $("overlay").setAttribute("viewBox", "0 0 " + size[0] + " " + size[1]);
  ["x", "y", "width", "height"].forEach((key, i) => rect.setAttribute(key, part[i]));
}

async function picture(report) {
  if (!report.picture_at || report.picture_at === came) return;
  came = report.picture_at;
  const answer = await fetch("/v1/cameras/" + camera + "/picture");
  if (!answer.ok) return;
  const next = URL.createObjectURL(await answer.blob());
  const img = $("picture");
  img.onload = () => { if (address) URL.revokeObjectURL(address); address = next; };
  img.alt = "The last picture of camera " + camera;
  img.src = next;
}

function history(answers) {
  const strip = $("history");
  strip.replaceChildren(...answers.map((answer, i) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = Math.max(2, 60 * answer.score);
    const width = 512 / Math.max(64, answers.length);
    bar.setAttribute("class", answer.decision);
    bar.setAttribute("x", i * width);
    bar.setAttribute("y", 60 - height);
    bar.setAttribute("width", Math.max(0.5, width - 0.3));
    bar.setAttribute("height", height);
    return bar;
  }));
  const accepted = answers.filter((answer) => answer.decision === "accept").length;
  $("history-text").textContent = answers.length
    ? accepted + " of the last " + answers.length + " answers are accepted, since " + local(answers[0].time) + "."
    : "No answers yet.";
  const rows = answers.slice(-20).reverse().map((answer) => {
    const row = element("tr");
    [local(answer.time), answer.label, number(answer.score), answer.reason || answer.decision].forEach((text) => row.append(element("td", text)));
    return row;
  });
  $("site-answers").querySelector("tbody").replaceChildren(...rows);
  $("site-answers").hidden = !collecting || rows.length === 0;
}

function site(report) {
  collecting = report.collecting;
  const pictures = report.pictures || 0, enough = pictures >= report.need;
  $("site-bar").max = report.need;
  $("site-bar").value = Math.min(pictures, report.need);
  const count = collecting ? pictures + " of " + report.need + (report.repeated ? ", " + report.repeated + " were the same again" : "") : "none";
  if ($("site-count").textContent !== count) $("site-count").textContent = count;
  $("site-settle").disabled = !enough;
  $("site-forget").disabled = !collecting;
}

async function look() {
  if (!camera) return;
  const path = "/v1/cameras/" + camera;
  const report = await ask(path);
  show(report);
  await picture(report);
  history((await ask(path + "/answers")).answers);
  site(await ask(path + "/site"));
}

async function models() {
  const all = (await ask("/v1/models")).models;
  const said = all.map((model) => model.name + " " + model.version + ": " + (model.state === "READY" ? "ready" : model.reason)).join("; ");
  if ($("models").textContent !== said) $("models").textContent = said;
  const select = $("drop-model");
  if (select.length !== all.length) select.replaceChildren(...all.map((model) => element("option", model.name)));
  $("drop-model-row").hidden = all.length < 2;
  $("drift").replaceChildren(...all.filter((model) => model.watch).map((model) => {
    const table = element("table");
    table.append(element("caption", model.name + ": pictures " + model.watch.pictures));
    const head = element("tr");
    ["of", "index", "", ""].forEach((text) => head.append(text ? element("th", text, { scope: "col" }) : element("td")));
    table.append(head);
    if (!model.watch.drift.length) return element("p", model.name + ": too few answers yet; pictures " + model.watch.pictures);
    model.watch.drift.forEach((shift) => {
      const row = element("tr"), bar = element("td");
      row.append(element("th", shift.of, { scope: "row" }), element("td", shift.index.toFixed(3)));
      const meter = element("meter", undefined, { min: 0, max: 0.5, low: 0.1, high: 0.25, optimum: 0, "aria-label": "drift of " + shift.of });
      meter.value = shift.index;
      bar.append(meter);
      row.append(bar, element("td", shift.alarm ? "not as calibrated" : "as calibrated"));
      table.append(row);
    });
    return table;
  }));
  await tests(all);
}

async function tests(all) {
  const parts = await Promise.all(all.map(async (model) => {
    const part = element("p", undefined, { class: "row" });
    const said = model.selftest ? model.selftest : "not tested since the start";
    const button = element("button", "Test " + model.name + " now", { type: "button" });
    button.onclick = () => say("test-said", async () => {
      $("test-said").textContent = "testing " + model.name;
      const report = await ask("/v1/selftest?model=" + model.name, { method: "POST" });
      $("test-said").textContent = model.name + ": " + report.verdict;
      await models();
    });
    part.append(element("span", model.name + ": " + said), button);
    part.append(element("a", "with its pictures", { href: "/v1/selftest/page?model=" + model.name }));
    return part;
  }));
  const now = $("tests");
  // Who is at a button must not lose it.
  if (!now.contains(document.activeElement) && now.textContent !== parts.map((p) => p.textContent).join("")) now.replaceChildren(...parts);
}

async function samples() {
  const { kept, samples: all } = await ask("/v1/samples");
  $("samples-part").hidden = !kept;
  $("samples-said").textContent = all.length === 1 ? "1 picture" : all.length + " pictures";
  const list = $("samples");
  if (list.contains(document.activeElement)) return;
  list.replaceChildren(...all.slice(-30).reverse().map((sample) => {
    const item = element("li");
    item.append(element("img", undefined, { src: "/v1/samples/" + sample.id, alt: sample.label + ", " + sample.why, loading: "lazy" }));
    item.append(element("div", sample.label + ": " + sample.why));
    const button = element("button", "Delete", { type: "button", "aria-label": "Delete the picture of " + local(sample.time) });
    button.onclick = () => say("samples-said", async () => { await ask("/v1/samples/" + sample.id, { method: "DELETE" }); button.blur(); await samples(); });
    item.append(button);
    return item;
  }));
}

async function classify(file) {
  const img = $("dropped");
  if (img.src) URL.revokeObjectURL(img.src);
  img.src = URL.createObjectURL(file);
  img.hidden = false;
  $("drop-said").textContent = "looking";
  const which = $("drop-model-row").hidden ? "" : "?model=" + $("drop-model").value;
  const verdict = await ask("/v1/classify" + which, { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
  const said = verdict.decision === "accept" ? "accepted" : "abstained from: " + verdict.reason;
  $("drop-said").textContent = verdict.label + ", probability " + number(verdict.score) + ", " + said;
}

async function cameras() {
  const all = (await ask("/v1/cameras")).cameras;
  $("camera").hidden = all.length === 0;
  const select = $("which");
  if (select.length !== all.length) {
    select.replaceChildren(...all.map((one) => element("option", one.camera)));
    camera = all.length ? all[0].camera : "";
  }
}

async function thresholds() {
  const served = await ask("/v1/thresholds").catch(() => null);
  if (!served) return;
  $("site-now").textContent = served.site
    ? "Now: " + served.site.pictures + " pictures of this place decide; " + served.site.promised_percent + " % of ordinary ones may be abstained from."
    : "Now: the maker's pictures decide.";
}

function at(event) {
  const box = $("view").getBoundingClientRect();
  const clamp = (value, most) => Math.round(Math.min(Math.max(value, 0), most));
  return [clamp((event.clientX - box.left) / box.width * size[0], size[0]), clamp((event.clientY - box.top) / box.height * size[1], size[1])];
}

function put(part) {
  return say("site-said", async () => {
    await ask("/v1/cameras/" + camera + "/region", { method: "PUT", body: JSON.stringify({ region: part }) });
    region = part;
    editing = false;
    write();
    $("site-said").textContent = part ? "The region is set until the service starts anew; write it into the settings to keep it." : "The whole picture is looked at.";
  });
}

function wire() {
  $("which").onchange = () => { camera = $("which").value; came = null; editing = false; say("caption", look); };
  $("classify").onclick = () => say("why", () => ask("/v1/cameras/" + camera + "/classify", { method: "POST" }));
  const view = $("view");
  view.onpointerdown = (event) => { if (size) { drawing = at(event); view.setPointerCapture(event.pointerId); event.preventDefault(); } };
  view.onpointermove = (event) => {
    if (!drawing) return;
    const [x, y] = at(event), part = [Math.min(x, drawing[0]), Math.min(y, drawing[1]), Math.abs(x - drawing[0]), Math.abs(y - drawing[1])];
    frame(part);
    ["rx", "ry", "rw", "rh"].forEach((id, i) => { $(id).value = part[i]; });
  };
  view.onpointerup = () => { if (drawing) { drawing = null; editing = true; } };
  const written = () => ["rx", "ry", "rw", "rh"].map((id) => Number($(id).value));
  ["rx", "ry", "rw", "rh"].forEach((id) => { $(id).oninput = () => { editing = true; frame(written()); }; });
  $("set-region").onclick = () => put(written());
  $("whole").onclick = () => put(null);
  const path = () => "/v1/cameras/" + camera + "/site";
  $("site-begin").onclick = () => say("site-said", async () => { site(await ask(path(), { method: "POST" })); $("site-said").textContent = "Collecting: let the camera see what it usually sees."; });
  $("site-forget").onclick = () => say("site-said", async () => { site(await ask(path(), { method: "DELETE" })); $("site-said").textContent = "Forgotten."; });
  $("site-settle").onclick = () => say("site-said", async () => {
    const report = await ask(path(), { method: "PUT" });
    $("site-said").textContent = "From now on the pictures of this place decide (" + report.pictures + ").";
    await thresholds();
  });
  $("file").onchange = () => { if ($("file").files.length) say("drop-said", () => classify($("file").files[0])); };
  const drop = $("drop");
  drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("over"); };
  drop.ondragleave = () => drop.classList.remove("over");
  drop.ondrop = (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const file = event.dataTransfer.files[0];
    if (file) say("drop-said", () => classify(file));
  };
}

async function every(milliseconds, work) {
  for (;;) {
    if (!document.hidden) {
      try { await work(); } catch (error) { $("models").textContent = error.message; }
    }
    await new Promise((done) => setTimeout(done, milliseconds));
  }
}

wire();
every(5000, async () => { await cameras(); await models(); await thresholds(); await samples(); });
every(700, look);
