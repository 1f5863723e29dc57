//! Validation of the configuration.

use wardroom_testing::server::run;

fn check(text: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wardroom.yaml");
    std::fs::write(&file, text).unwrap();
    run(&["config", "check", "--config", file.to_str().unwrap()]).unwrap()
}

#[test]
fn config_check_accepts_valid_and_rejects_invalid_files() {
    assert_eq!(check("").0, Some(0));
    assert_eq!(check("detect:\n  z-warning: 3\nrespond:\n  hold: 120\n").0, Some(0));
    assert_eq!(check("detect:\n  z-warning: lots\n").0, Some(1));
    assert_eq!(check("detektor: {}\n").0, Some(1));
}

#[test]
fn auth_off_requires_a_loopback_address() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").display().to_string();
    let (code, out) = run(&["serve", "--data", &data, "--listen", "0.0.0.0:0", "--auth", "off"]).unwrap();
    assert_eq!((code, out.as_str()), (Some(1), ""));
}
