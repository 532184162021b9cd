//! A real browser without a window, driven by the `WebDriver` protocol over loopback.

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::canary::{self, Kind};
use crate::child::{self, Server};
use crate::scratch::Scratch;
use crate::{ports, servers};

/// How long anything that a browser does may take.
const LIMIT: Duration = Duration::from_mins(3);

/// Where a page tells what opens a sandbox, once.
const PASSWORD: &str = "#password";

/// By this name the protocol calls the number of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one page; it ends on drop.
#[derive(Debug)]
pub struct Browser {
    session: String,
    _driver: Server,
    _scratch: Scratch,
}

impl Browser {
    /// Starts one with nothing in it.
    ///
    /// # Errors
    /// When it is not there or does not come up.
    pub fn start() -> Result<Self> {
        let (driver, browser) = (
            servers::path("PGB_TEST_CHROMEDRIVER")?,
            servers::path("PGB_TEST_CHROMIUM")?,
        );
        let (scratch, port) = (Scratch::new()?, ports::free(&[])?);
        let folder = scratch.path();
        let log = folder.join("log");
        let mut command = child::command_as_self(driver, Signal::SIGKILL);
        command.arg(format!("--port={port}"));
        command.env("HOME", folder).env("TMPDIR", folder);
        command.stdin(File::open("/dev/null")?);
        command.stdout(File::create(&log)?);
        command.stderr(File::options().append(true).open(&log)?);
        let mut driver = Server::spawn(command, Signal::SIGTERM)?;
        let url = format!("http://127.0.0.1:{port}");
        let deadline = Instant::now() + LIMIT;
        while call("GET", &format!("{url}/status"), &Value::Null).is_err() {
            let said = fs::read_to_string(&log)?;
            ensure!(driver.exited()?.is_none(), "the driver ended: {said}");
            ensure!(Instant::now() < deadline, "the driver is silent: {said}");
            thread::sleep(Duration::from_millis(50));
        }
        let profile = folder.join("profile");
        let arguments = json!([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--lang=en",
            format!("--user-data-dir={}", profile.display()),
        ]);
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"binary": browser, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let made = call("POST", &format!("{url}/session"), &wanted)?;
        let id = made["sessionId"].as_str().context("a session")?;
        let browser = Self {
            session: format!("{url}/session/{id}"),
            _driver: driver,
            _scratch: scratch,
        };
        browser.devtools("Network.enable", &json!({}))?;
        browser.speak("en")?;
        browser.size(1280, 800)?;
        Ok(browser)
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        call("POST", &format!("{}/{path}", self.session), body)
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Result<Value> {
        let body = json!({"cmd": command, "params": parameters});
        self.post("goog/cdp/execute", &body)
    }

    /// Goes to a page and waits until it is loaded.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub fn open(&self, url: &str) -> Result<()> {
        self.post("url", &json!({"url": url})).map(drop)
    }

    /// Presses what a selector finds first.
    ///
    /// # Errors
    /// When there is none, or it cannot be pressed.
    pub fn click(&self, selector: &str) -> Result<()> {
        let element = self.find(selector)?;
        self.post(&format!("element/{element}/click"), &json!({}))
            .map(drop)
    }

    /// Types into what a selector finds first.
    ///
    /// # Errors
    /// When there is none, or it takes no text.
    pub fn write(&self, selector: &str, text: &str) -> Result<()> {
        let element = self.find(selector)?;
        self.post(&format!("element/{element}/value"), &json!({"text": text}))
            .map(drop)
    }

    fn find(&self, selector: &str) -> Result<String> {
        let body = json!({"using": "css selector", "value": selector});
        let found = self.post("element", &body)?;
        let id = found[ELEMENT].as_str().context("an element")?;
        Ok(id.to_owned())
    }

    /// What a script answers.
    ///
    /// # Errors
    /// When it throws.
    pub fn ask(&self, script: &str) -> Result<Value> {
        let told = self.run(script)?;
        canary::look(Kind::Answer, "a page", told.as_str().unwrap_or_default())?;
        Ok(told)
    }

    fn run(&self, script: &str) -> Result<Value> {
        self.post("execute/sync", &json!({"script": script, "args": []}))
    }

    /// What can be read in what a selector finds first; nothing where there is none.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn text(&self, selector: &str) -> Result<String> {
        let script = format!(
            "const found = document.querySelector({}); return found ? found.innerText : ''",
            json!(selector)
        );
        let text = self.run(&script)?;
        let text = text.as_str().unwrap_or_default().to_owned();
        if selector == PASSWORD {
            canary::keep_if_any(&text);
        } else {
            canary::look(Kind::Answer, "a page", &text)?;
        }
        Ok(text)
    }

    /// The address of the page, without its host.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn path(&self) -> Result<String> {
        let path = self.ask("return location.pathname + location.search")?;
        Ok(path.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the page is as it should be.
    ///
    /// # Errors
    /// When it does not become so.
    pub fn wait_until(&self, what: &str, done: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        // A page that is just being left answers with errors.
        while !done(self).unwrap_or(false) {
            if Instant::now() > deadline {
                bail!("not {what}: {}", self.text("body")?);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Everything that the browser complained of since it was last asked.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn complaints(&self) -> Result<Vec<String>> {
        let entries = self.post("se/log", &json!({"type": "browser"}))?;
        let entries = entries.as_array().context("a list")?.iter();
        let text = entries.filter_map(|entry| entry["message"].as_str());
        Ok(text.map(str::to_owned).collect())
    }

    /// How much room a page has.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn size(&self, width: u32, height: u32) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", &size)
            .map(drop)
    }

    /// Which language whoever reads would rather have.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn speak(&self, language: &str) -> Result<()> {
        let headers = json!({"headers": {"Accept-Language": language}});
        self.devtools("Network.setExtraHTTPHeaders", &headers)
            .map(drop)
    }

    /// Whether whoever reads would rather have it dark.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn dark(&self, dark: bool) -> Result<()> {
        let value = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.devtools("Emulation.setEmulatedMedia", &features)
            .map(drop)
    }

    /// Whether pages may run scripts.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn allow_scripts(&self, allow: bool) -> Result<()> {
        let parameters = json!({"value": !allow});
        self.devtools("Emulation.setScriptExecutionDisabled", &parameters)
            .map(drop)
    }

    /// The whole page as a picture.
    ///
    /// # Errors
    /// When the browser does not answer, or it cannot be written.
    pub fn picture(&self, path: &Path) -> Result<()> {
        let parameters = json!({"captureBeyondViewport": true});
        let answer = self.devtools("Page.captureScreenshot", &parameters)?;
        let data = answer["data"].as_str().context("a picture")?;
        fs::write(path, STANDARD.decode(data)?)?;
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser with it.
        let _ = call("DELETE", &self.session, &Value::Null);
    }
}

fn call(method: &str, url: &str, body: &Value) -> Result<Value> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(LIMIT))
        .build()
        .into();
    let mut answer = match method {
        "POST" => agent
            .post(url)
            .header("Content-Type", "application/json; charset=utf-8")
            .send(body.to_string())?,
        "DELETE" => agent.delete(url).call()?,
        _ => agent.get(url).call()?,
    };
    let text = answer
        .body_mut()
        .with_config()
        .limit(64 << 20)
        .read_to_string()?;
    let mut said: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let value = said["value"].take();
    if let Some(error) = value["error"].as_str() {
        let message = value["message"].as_str().unwrap_or_default();
        bail!(
            "{url}: {error}: {}",
            message.lines().next().unwrap_or_default()
        );
    }
    Ok(value)
}
