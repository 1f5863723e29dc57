// A person in a real Chromium with a virtual authenticator (Playwright): registers a passkey with a token, logs in with
// it, and approves a plan. Arguments: the URL of Wardroom, the token, the program Chromium. The line for the executor's
// file is printed; a line of standard input means that it is there.
import readline from "node:readline";
import { chromium } from "playwright-core";

const [url, token, executablePath] = process.argv.slice(2);
const input = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"],
});
const context = await browser.newContext();
const page = await context.newPage();
page.setDefaultTimeout(20_000);
const errors = [];
page.on("pageerror", (error) => errors.push(String(error)));
page.on("console", (message) => message.type() === "error" && errors.push(message.text()));

const session = await context.newCDPSession(page);
await session.send("WebAuthn.enable");
await session.send("WebAuthn.addVirtualAuthenticator", {
  options: {
    protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true,
    automaticPresenceSimulation: true,
  },
});

await page.goto(`${url}/account`);
await page.waitForURL("**/login?**");
await page.fill("input[name=token]", token);
await page.click("text=Log in with a token");
await page.waitForURL("**/account");
await page.fill("#passkey-name", "laptop");
await page.click("#passkey-register");
const line = await page.locator("pre").textContent();
console.log(line);
await input.next();

await page.click("text=Log out");
await page.waitForURL("**/login");
await page.goto(`${url}/login?next=/incidents/INC-1`);
await page.click("#passkey-login");
await page.waitForURL("**/incidents/INC-1");
await page.fill("#passkey-reason", "seen in a browser");
await page.click("#passkey-approve");
await page.waitForSelector("text=Approved by");
console.log(await page.locator("text=Approved by").first().textContent());
if (errors.length > 0) throw new Error(errors.join("\n"));
await browser.close();
process.exit(0);
