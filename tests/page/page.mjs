// Drives the page of a running paradised in headless Chromium: page.mjs URL FOLDER PICTURE [TOKEN]
// Says what it saw as JSON; screenshots go to FOLDER.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [url, folder, picture, token] = process.argv.slice(2);
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
const said = { errors: [], elsewhere: [], violations: {} };
const known = token ? { httpCredentials: { username: "anyone", password: token } } : {};

async function open(options) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 1600 }, ...known, ...options });
  const page = await context.newPage();
  page.on("console", (message) => { if (message.type() === "error") said.errors.push(message.text()); });
  page.on("pageerror", (error) => said.errors.push(String(error)));
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !/^(blob|data):/.test(request.url())) said.elsewhere.push(request.url());
  });
  return page;
}

/** What axe-core finds serious or worse. It is evaluated by the browser's debugger, which the page's policy does not bind. */
async function check(page, name) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => globalThis.axe.run());
  const serious = found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
  said.violations[name] = serious.map((one) => one.id + ": " + one.nodes.map((node) => node.html).join(" "));
}

for (const colorScheme of ["light", "dark"]) {
  const page = await open({ colorScheme });
  await page.goto(url);
  await page.waitForFunction(() => document.querySelector("#state").textContent.startsWith("unknown") || document.querySelector("#state.label"));
  await page.waitForFunction(() => document.querySelectorAll("#history rect").length > 0 && !document.querySelector("#drift").textContent.includes("nothing yet"));
  await page.waitForFunction(() => document.querySelector("#picture").naturalWidth > 0);
  await check(page, colorScheme);
  await page.screenshot({ path: `${folder}/${colorScheme}.png`, fullPage: true });
  await page.context().close();
}

const page = await open({});
await page.goto(url);
await page.waitForFunction(() => document.querySelector("#picture").naturalWidth > 0);
said.state = await page.textContent("#state");

// A region by keyboard alone.
await page.focus("#rx");
for (const value of ["28", "0", "28", "28"]) {
  await page.keyboard.press("Control+A");
  await page.keyboard.type(value);
  await page.keyboard.press("Tab");
}
said.focused = await page.evaluate(() => document.activeElement.id);
await page.keyboard.press("Enter");
await page.waitForFunction(() => document.querySelector("#site-said").textContent.startsWith("The region is set"));

// And by drawing: the left half.
const box = await page.locator("#view").boundingBox();
await page.mouse.move(box.x + 1, box.y + 1);
await page.mouse.down();
await page.mouse.move(box.x + box.width / 2, box.y + box.height - 1, { steps: 5 });
await page.mouse.up();
said.drawn = await page.evaluate(() => ["rx", "ry", "rw", "rh"].map((id) => Number(document.getElementById(id).value)));
await page.click("#set-region");
await page.waitForTimeout(1000);

// A picture to classify.
await page.setInputFiles("#file", picture);
await page.waitForFunction(() => document.querySelector("#drop-said").textContent.includes("probability"));
said.dropped = await page.textContent("#drop-said");
await page.waitForFunction(() => document.querySelector("#dropped").naturalWidth > 0);

// Thresholds for this place.
await page.click("#site-begin");
await page.waitForFunction(() => !document.querySelector("#site-answers").hidden && document.querySelectorAll("#site-answers tbody tr").length >= 20, null, { timeout: 60000 });
await page.screenshot({ path: `${folder}/collecting.png`, fullPage: true });
await page.waitForFunction(() => !document.querySelector("#site-settle").disabled, null, { timeout: 150000 });
// Of 200 exactly, one that is unlike all others would be one too few.
await page.waitForFunction(() => parseInt(document.querySelector("#site-count").textContent, 10) >= 230, null, { timeout: 60000 });
await page.click("#site-settle");
await page.waitForFunction(() => document.querySelector("#site-said").textContent.startsWith("From now on") || document.querySelector("#site-settle").disabled === false, null, { timeout: 60000 });
await page.waitForTimeout(500);
said.settled = await page.textContent("#site-said");
said.now = await page.textContent("#site-now");

// A self-test.
await page.click("#tests button");
await page.waitForFunction(() => /: (passed|failed|incomplete)/.test(document.querySelector("#test-said").textContent));
said.tested = await page.textContent("#test-said");
await page.context().close();

// Without a script.
const plain = await open({ javaScriptEnabled: false });
await plain.goto(url);
said.noscript = await plain.textContent("noscript");
await plain.goto(url + "report");
said.report = await plain.textContent("main");
await plain.screenshot({ path: `${folder}/report.png` });
await plain.click("text=with its pictures");
said.selftest = { title: await plain.title(), pictures: await plain.locator("img").count() };
await plain.context().close();
for (const path of ["report", "v1/selftest/page"]) {
  const checked = await open({});
  await checked.goto(url + path);
  await check(checked, path);
  await checked.context().close();
}
await browser.close();
console.log(JSON.stringify(said));
