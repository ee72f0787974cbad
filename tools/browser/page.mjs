// The page in a real Chromium. Needs Debian's chromium (or CHROMIUM=path), `npm install` here, and the program:
//   node page.mjs ../../target/release/earthmapper [folder for screenshots]
// PAGE=../../crates/server/src/page takes the page's files from there instead of the program: to look at changes.
// Every check is a line; the exit code is 0 when all hold.

import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [program, shots = mkdtempSync(join(tmpdir(), "earthmapper-shots-"))] = process.argv.slice(2);
mkdirSync(shots, { recursive: true });
let failures = 0;
const running = [];

function check(what, holds, more = "") {
  console.log(`${holds ? "ok  " : "FAIL"} ${what} ${more}`);
  if (!holds) failures += 1;
}

// Whether something comes true in time: a page that is drawn by a busy processor takes seconds for what takes a moment.
async function comes(true_, milliseconds = 10000) {
  for (const end = Date.now() + milliseconds; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 100))) {
    if (await true_()) return true;
  }
  return false;
}

async function start(...flags) {
  const server = spawn(program, ["serve", "--listen", "127.0.0.1:0", "--json", ...flags], { stdio: ["ignore", "pipe", "inherit"] });
  running.push(server);
  const url = await new Promise((resolve, reject) => {
    let text = "";
    server.stdout.on("data", (bytes) => {
      text += bytes;
      if (text.includes("\n")) resolve(JSON.parse(text.split("\n")[0]).url);
    });
    server.on("exit", (code) => reject(new Error(`the program ends with ${code}`)));
  });
  for (;;) {
    if ((await fetch(`${url}/ready`)).ok) return { server, url };
    await new Promise((resolve) => { setTimeout(resolve, 100); });
  }
}

const { url: served } = await start();
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

async function end(one) {
  one.kill("SIGTERM");
  if (one.exitCode === null) await new Promise((resolve) => { one.on("exit", resolve); });
}

/** A GeoTIFF of some pixels without compression, its upper left corner at a place, in degrees. */
function geotiff(side, degrees, [west, north], colour) {
  const entries = 12;
  const [keys, scale, tie, pixels] = [256, 256 + 8 * 5, 256 + 8 * 5 + 24, 512];
  const view = new DataView(new ArrayBuffer(pixels + 3 * side * side));
  const little = true;
  view.setUint16(0, 0x4949);
  view.setUint16(2, 42, little);
  view.setUint32(4, 8, little);
  view.setUint16(8, entries, little);
  [
    [256, 3, 1, side], [257, 3, 1, side], [258, 3, 1, 8], [259, 3, 1, 1], [262, 3, 1, 2], [273, 4, 1, pixels], [277, 3, 1, 3],
    [278, 3, 1, side], [279, 4, 1, 3 * side * side], [33550, 12, 3, scale], [33922, 12, 6, tie], [34735, 3, 12, keys],
  ].forEach(([tag, kind, count, value], i) => {
    const at = 10 + 12 * i;
    view.setUint16(at, tag, little);
    view.setUint16(at + 2, kind, little);
    view.setUint32(at + 4, count, little);
    if (kind === 3 && count === 1) view.setUint16(at + 8, value, little);
    else view.setUint32(at + 8, value, little);
  });
  [1, 1, 0, 2, 1024, 0, 1, 2, 2048, 0, 1, 4326].forEach((value, i) => view.setUint16(keys + 2 * i, value, little));
  [degrees, degrees, 0].forEach((value, i) => view.setFloat64(scale + 8 * i, value, little));
  [0, 0, 0, west, north, 0].forEach((value, i) => view.setFloat64(tie + 8 * i, value, little));
  for (let y = 0; y < side; y += 1) {
    for (let x = 0; x < side; x += 1) colour(x, y).forEach((value, i) => view.setUint8(pixels + 3 * (y * side + x) + i, value));
  }
  return Buffer.from(view.buffer);
}

async function open(options, path = "/", url = served) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, acceptDownloads: true, ...options });
  context.setDefaultTimeout(120000);
  if (process.env.PAGE) {
    await context.route((address) => address.pathname === "/" || /^\/assets\/[a-z]+\.(js|css)$/.test(address.pathname), async (route) => {
      const answer = await route.fetch();
      const name = new URL(route.request().url()).pathname.split("/").pop() || "index.html";
      await route.fulfill({ response: answer, body: readFileSync(join(process.env.PAGE, name)) });
    });
  }
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) complaints.push(message.text()); });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !/^(data|blob):/.test(request.url())) complaints.push(`asks ${request.url()}`);
  });
  await page.goto(url + path);
  await page.waitForSelector("html[data-ready=yes]", { timeout: 30_000 });
  return { page, complaints, context };
}

const idle = (page) => page.waitForFunction(
  () => [earthmapper.view.before, earthmapper.view.after].every((map) => map.loaded() && map.areTilesLoaded()),
  undefined, { timeout: 240_000 });
const shot = (page, name) => page.screenshot({ timeout: 120000, path: join(shots, `${name}.png`) });

/** How many colours a map shows: a blank one shows one. */
const colours = (page, map) => page.evaluate((name) => {
  const shown = earthmapper.view[name].getCanvas();
  const canvas = new OffscreenCanvas(64, 64);
  const context = canvas.getContext("2d");
  context.drawImage(shown, 0, 0, 64, 64);
  const { data } = context.getImageData(0, 0, 64, 64);
  const found = new Set();
  for (let i = 0; i < data.length; i += 4) found.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
  return found.size;
}, map);

try {
  const { page, complaints, context } = await open({});
  await idle(page);
  await shot(page, "1-first");
  check("the first view is of tiles pixel for pixel", await page.evaluate(() => Math.round(earthmapper.view.after.getZoom()) === earthmapper.view.direction.min_zoom));
  check("the original is shown", await colours(page, "before") > 50, `${await colours(page, "before")} colours`);
  check("the result is shown", await colours(page, "after") > 50, `${await colours(page, "after")} colours`);
  check("a badge says that it is synthetic", (await page.textContent("#badge")).includes("Synthetic"));

  const swipe = page.locator("#swipe");
  const box = await swipe.boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.mouse.down();
  await page.mouse.move(300, box.y + box.height / 2, { steps: 5 });
  await page.mouse.up();
  const moved = Number(await swipe.getAttribute("aria-valuenow"));
  check("the border can be dragged", moved > 25 && moved < 40, `${moved} %`);
  await swipe.focus();
  await page.keyboard.press("ArrowRight");
  check("the border moves by key", Number(await swipe.getAttribute("aria-valuenow")) === moved + 2);

  await page.evaluate(() => earthmapper.view.before.jumpTo({ center: [0.004, 0.003], zoom: 15.2 }));
  const centres = await page.evaluate(() => ["before", "after"].map((name) => earthmapper.view[name].getCenter().toArray().map((n) => n.toFixed(6)).join()));
  check("both maps move together", centres[0] === centres[1], centres.join(" = "));
  await idle(page);
  check("the address says where", (await page.evaluate(() => location.hash)).includes("lon=0.004"));
  await shot(page, "2-moved");

  const before = await page.evaluate(() => earthmapper.state.to);
  await page.click("#direction");
  await idle(page);
  const after = await page.evaluate(() => earthmapper.state.to);
  check("the direction can be changed", before !== after, `${before} to ${after}`);
  await shot(page, "3-direction");
  await page.click("#direction");
  await idle(page);

  const opacity = page.locator("#opacity");
  await opacity.fill("0");
  check("the result can be made transparent", await comes(async () => await colours(page, "after") <= 2));
  await opacity.fill("1");

  await page.keyboard.press("u");
  await idle(page);
  await shot(page, "4-uncertainty");
  check("uncertainty can be shown", await page.isChecked("#uncertainty"));
  await page.keyboard.press("u");

  await page.click("#reroll");
  check("a seed can be rolled", await page.inputValue("#seed") !== "0", await page.inputValue("#seed"));
  await idle(page);
  await page.click("#gallery-open");
  await page.waitForFunction(() => [...document.querySelectorAll("#samples img")].every((image) => image.complete && image.naturalWidth > 0), undefined, { timeout: 120_000 });
  check("samples are shown", await page.locator("#samples img").count() === 6);
  await shot(page, "5-samples");
  await page.locator("#samples button").nth(2).click();
  await idle(page);

  await page.click("#hole");
  const stage = await page.locator("#stage").boundingBox();
  const centre = [stage.x + stage.width * 0.7, stage.y + stage.height * 0.5];
  await page.mouse.move(centre[0] - 50, centre[1] - 40);
  await page.mouse.down();
  for (const [x, y] of [[50, -40], [60, 40], [-40, 50], [-50, -40]]) await page.mouse.move(centre[0] + x, centre[1] + y, { steps: 4 });
  await page.mouse.up();
  await page.waitForFunction(() => earthmapper.filled, undefined, { timeout: 120_000 });
  const filled = await page.evaluate(async () => {
    const { picture, mask, result } = earthmapper.filled;
    const pixels = (image) => {
      const canvas = new OffscreenCanvas(image.width, image.height);
      const context = canvas.getContext("2d");
      context.drawImage(image, 0, 0);
      return context.getImageData(0, 0, image.width, image.height).data;
    };
    const [a, b, m] = [pixels(picture), pixels(await createImageBitmap(result)), pixels(mask)];
    let [inside, outside] = [0, 0];
    for (let i = 0; i < a.length; i += 4) {
      const differs = a[i] !== b[i] || a[i + 1] !== b[i + 1] || a[i + 2] !== b[i + 2];
      if (differs && m[i] >= 128) inside += 1;
      if (differs && m[i] < 128) outside += 1;
    }
    return { inside, outside };
  });
  check("in-painting changes the hole", filled.inside > 500, `${filled.inside} pixels`);
  check("in-painting changes nothing else", filled.outside === 0, `${filled.outside} pixels`);
  await page.waitForTimeout(500);
  await shot(page, "6-hole");

  await page.click("#generate");
  await page.mouse.click(centre[0], centre[1] + 150);
  await page.waitForSelector("#results figure", { timeout: 120_000 });
  check("a click invents a pair", await page.locator("#results figure img").count() === 2);
  await page.waitForTimeout(500);
  await shot(page, "7-generated");

  const file = join(shots, "sent.png");
  writeFileSync(file, Buffer.from(await (await fetch(`${served}/town/original/16/32768/32767.png?of=map`)).arrayBuffer()));
  await page.setInputFiles("#file", file);
  await page.waitForFunction(() => document.querySelectorAll("#results figure").length === 2, undefined, { timeout: 120_000 });
  check("a picture of one's own is translated", true);
  await shot(page, "8-own");

  const side = 200;
  const tiff = geotiff(side, 0.0000108, [0.0035, 0.0045], (x, y) => (x % 40 < 6 || y % 50 < 6 ? [255, 255, 255] : [228, 226, 222]));
  await page.evaluate((bytes) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], "mine.tif", { type: "image/tiff" }));
    for (const name of ["dragenter", "dragover", "drop"]) {
      document.getElementById("drop").dispatchEvent(new DragEvent(name, { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }
  }, [...tiff]);
  await page.waitForFunction(() => document.querySelectorAll("#results figure").length === 3, undefined, { timeout: 120_000 });
  await page.waitForTimeout(500);
  const at = await page.evaluate(() => earthmapper.view.after.getCenter().toArray());
  check("a GeoTIFF that is dropped lies where it belongs", Math.hypot(at[0] - 0.00458, at[1] - 0.00342) < 2e-4, at.map((n) => n.toFixed(5)).join());
  await shot(page, "8-geotiff");

  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
  await download.saveAs(join(shots, "download.png"));
  check("the view can be taken away", download.suggestedFilename().endsWith("synthetic.png"), download.suggestedFilename());
  const [tiles] = await Promise.all([page.waitForEvent("download", { timeout: 300_000 }), page.click("#area")]);
  check("the tiles of the view can be taken away", tiles.suggestedFilename() === "earthmapper.pmtiles");

  const link = await page.evaluate(() => location.hash);
  const second = await open({}, `/${link}`);
  const same = await second.page.evaluate(() => [earthmapper.state.seed, earthmapper.state.to, earthmapper.state.z.toFixed(2)].join());
  const first = await page.evaluate(() => [earthmapper.state.seed, earthmapper.state.to, earthmapper.state.z.toFixed(2)].join());
  check("a link shows the same", same === first, first);
  check("nobody complains", complaints.length + second.complaints.length === 0, [...complaints, ...second.complaints].slice(0, 5).join(" | "));
  await context.close();
  await second.context.close();

  for (const [name, options] of [
    ["9-phone", { viewport: { width: 390, height: 780 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true }],
    ["10-dark", { colorScheme: "dark" }],
  ]) {
    const one = await open(options);
    await idle(one.page);
    await shot(one.page, name);
    const wide = await one.page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    check(`${name}: nothing sticks out`, !wide && one.complaints.length === 0, one.complaints.join(" | "));
    await one.context.close();
  }

  const phone = await open({ viewport: { width: 390, height: 780 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true });
  await idle(phone.page);
  const knob = await phone.page.locator("#swipe span").boundingBox();
  const session = await phone.context.newCDPSession(phone.page);
  const touch = (type, x) => session.send("Input.dispatchTouchEvent", {
    type, touchPoints: type === "touchEnd" ? [] : [{ x, y: knob.y + knob.height / 2 }],
  });
  await touch("touchStart", knob.x + knob.width / 2);
  for (const x of [160, 120, 90]) await touch("touchMove", x);
  await touch("touchEnd");
  const share = Number(await phone.page.locator("#swipe").getAttribute("aria-valuenow"));
  check("a finger moves the border", share > 15 && share < 30, `${share} %`);
  // A browser takes a tap right after a flick for the end of the flick.
  await phone.page.waitForTimeout(1500);
  await phone.page.locator("#panel-toggle").tap();
  const heights = () => phone.page.evaluate(() => ["stage", "panel"].map((id) => document.getElementById(id).clientHeight));
  check("tools can be put away", await comes(async () => {
    const [stage, panel] = await heights();
    return stage > 500 && panel < 1;
  }), (await heights()).join());
  const small = await phone.page.evaluate(() => [...document.querySelectorAll("button, select, input, #swipe span")]
    .filter((one) => one.offsetParent && one.getBoundingClientRect().height < 18).map((one) => one.id));
  check("fingers hit everything", small.length === 0, small.join());
  await shot(phone.page, "11-phone-map");
  await phone.context.close();

  const folder = mkdtempSync(join(tmpdir(), "earthmapper-names-"));
  const evil = '<img src=x onerror=\'document.title="run"\'><b>bold</b>';
  writeFileSync(join(folder, "town.geojson"), JSON.stringify({ type: "FeatureCollection", features: [{ type: "Feature",
    properties: { class: "minor" }, geometry: { type: "LineString", coordinates: [[-0.002, -0.002], [0.003, 0.002]] } }] }));
  writeFileSync(join(folder, "serve.toml"), `[[source]]\nid = "evil"\nname = ${JSON.stringify(evil)}\nforce = true\n` +
    `map = { path = ${JSON.stringify(join(folder, "town.geojson"))}, attribution = ${JSON.stringify(evil)} }\n`);
  writeFileSync(join(folder, "token"), "secret\n");
  const other = await start("--config", join(folder, "serve.toml"), "--token-file", join(folder, "token"));
  const named = await open({}, "/", other.url);
  await named.page.waitForTimeout(1000);
  const harm = await named.page.evaluate(() => [document.title, document.querySelectorAll("img[src=x], b").length, document.querySelector("#source option").textContent]);
  check("names are text, never markup", harm[0] === "EarthMapper" && harm[1] === 0 && harm[2].includes("<b>bold"), harm.join(" "));
  await named.page.keyboard.press("n");
  await named.page.keyboard.press("Enter");
  await named.page.waitForFunction(() => document.getElementById("status").textContent.includes("Bearer"), undefined, { timeout: 30_000 });
  await named.page.fill("#token", "secret");
  await named.page.locator("#token").blur();
  await named.page.keyboard.press("n");
  await named.page.keyboard.press("Enter");
  await named.page.waitForSelector("#results figure", { timeout: 120_000 });
  check("changes are made with the token only", true);
  await shot(named.page, "12-token");
  await named.context.close();

  const keyboard = await open({});
  await idle(keyboard.page);
  await keyboard.page.keyboard.press("n");
  await keyboard.page.keyboard.press("Enter");
  await keyboard.page.waitForSelector("#results figure", { timeout: 120_000 });
  check("keys alone invent a pair", true);
  await keyboard.context.close();
} catch (error) {
  check("no surprise", false, String(error));
} finally {
  await browser.close();
  await Promise.all(running.map(end));
}
console.log(`screenshots: ${shots}`);
process.exit(failures === 0 ? 0 : 1);
