//! `systemd` against the D-Bus interface of python-dbusmock's systemd, on a bus of its own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use wardroom_domain::ToolCall;
use wardroom_respond::{Tool, ToolError};
use wardroom_testing::server::program;
use wardroom_tools::programs::NoPrograms;

use super::contract::{self, Case, Cut};
use super::{call, context, cut_proxy, tool_with};

/// A bus with a systemd on it.
struct Systemd {
    dir: tempfile::TempDir,
    bus: Child,
    mock: Child,
}

impl Drop for Systemd {
    fn drop(&mut self) {
        for child in [&mut self.mock, &mut self.bus] {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Permissions of a bus on which all may do everything.
const BUS_CONFIGURATION: &str = r#"<busconfig><type>session</type><listen>unix:path=SOCKET</listen>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>"#;

#[expect(clippy::disallowed_methods, reason = "tests start programs")]
fn systemd() -> Systemd {
    let dir = tempfile::tempdir().unwrap();
    let (socket, config) = (dir.path().join("bus.sock"), dir.path().join("bus.conf"));
    std::fs::write(&config, BUS_CONFIGURATION.replace("SOCKET", &socket.display().to_string())).unwrap();
    let mut bus = Command::new(program("DBUS_DAEMON_BIN"));
    bus.arg(format!("--config-file={}", config.display())).args(["--nofork", "--print-address"]);
    let mut bus = bus.stdout(Stdio::piped()).spawn().unwrap();
    first_line(&mut bus);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/systemd_mock.py");
    let mut mock = Command::new(program("DBUSMOCK_PYTHON"));
    mock.arg(script).arg(dir.path().join("effects"));
    let address = format!("unix:path={}", socket.display());
    mock.env("DBUS_SYSTEM_BUS_ADDRESS", &address).env("DBUS_SESSION_BUS_ADDRESS", &address);
    let mut mock = mock.stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(first_line(&mut mock), "ready");
    Systemd { dir, bus, mock }
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

impl Systemd {
    fn socket(&self) -> PathBuf {
        self.dir.path().join("bus.sock")
    }

    fn tool(&self, socket: &Path) -> Box<dyn Tool> {
        let bus = format!("unix:path={}", socket.display());
        let target = |name: &str, unit: &str| json!({ "tool": "systemd", "name": name, "unit": unit, "bus": bus });
        let targets =
            json!([target("web", "web.service"), target("idle", "idle.service"), target("none", "none.service")]);
        tool_with(&targets, &context(NoPrograms, &self.dir.path().join("notes")))
    }

    fn effects(&self) -> usize {
        std::fs::read_to_string(self.dir.path().join("effects")).unwrap_or_default().lines().count()
    }
}

fn systemd_call(operation: &str, target: &str) -> ToolCall {
    call("systemd", operation, target, json!({}))
}

#[test]
fn every_operation_holds_the_contract() {
    let systemd = systemd();
    let cut = Arc::new(Cut::default());
    let tool = systemd.tool(&systemd.socket());
    let cut_off = systemd.tool(&cut_proxy::unix(&systemd.socket(), systemd.dir.path(), &cut));
    let number = std::cell::Cell::new(0);
    // Restarts the unit behind the tool's back if it runs, and starts and stops it otherwise.
    let other_change = |target: &str| {
        let tool = systemd.tool(&systemd.socket());
        let operations: &[&str] = if target == "web" { &["restart"] } else { &["start", "stop"] };
        for operation in operations {
            number.set(number.get() + 1);
            let call = systemd_call(operation, target);
            let state = tool.state(&call).unwrap();
            tool.execute(&call, &wardroom_respond::Run::new(&state, &format!("other-{}", number.get()))).unwrap();
        }
    };
    let effects = || systemd.effects();
    for (operation, target) in [("restart", "web"), ("stop", "web"), ("start", "idle")] {
        let call = systemd_call(operation, target);
        let case = Case {
            tool: tool.as_ref(),
            call,
            other_change: &|| other_change(target),
            effects: &effects,
            key: operation,
        };
        contract::check(&case);
        assert!(contract::interrupted_everywhere(&case, cut_off.as_ref(), &cut) > 3, "{operation}");
    }
}

#[test]
fn the_dry_run_says_what_stops_with_a_unit_and_what_cannot_be_done() {
    let systemd = systemd();
    let tool = systemd.tool(&systemd.socket());
    let dry_run = tool.plan(&systemd_call("stop", "web")).unwrap();
    assert_eq!(dry_run.diff, "web.service goes from active to inactive");
    assert_eq!(dry_run.blast_radius, "web.service, and with it proxy.service");
    assert_eq!((dry_run.affected, dry_run.risk.as_str()), (Some(2), "high"));
    assert_eq!(dry_run.undo.unwrap().operation, "start");
    for (operation, target, reason) in
        [("start", "web", "active already"), ("stop", "idle", "inactive already"), ("restart", "none", "")]
    {
        let error = tool.plan(&systemd_call(operation, target)).unwrap_err();
        assert!(matches!(&error, ToolError::Invalid(text) if text.contains(reason)), "{operation} {target}: {error}");
    }
    let status: Value = tool.read(&systemd_call("status", "web"), std::time::Duration::ZERO).unwrap();
    assert_eq!((status["active_state"].as_str(), status["main_pid"].as_u64()), (Some("active"), Some(1000)));
    let nowhere = systemd.tool(Path::new("/nonexistent/bus"));
    assert!(matches!(nowhere.plan(&systemd_call("stop", "web")), Err(ToolError::Unavailable(_))));
}
