//! Configuration: mistakes name the field; every sample in the docs can be used.

use wardroom_testing::server::run;

fn check(text: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wardroom.yaml");
    std::fs::write(&file, text).unwrap();
    run(&["config", "check", "--config", file.to_str().unwrap()]).unwrap()
}

#[test]
fn good_and_bad_files_are_told_apart() {
    assert_eq!(check("").0, Some(0));
    assert_eq!(check("detect:\n  z-warning: 3\nrespond:\n  hold: 120\n").0, Some(0));
    assert_eq!(check("detect:\n  z-warning: lots\n").0, Some(1));
    assert_eq!(check("detektor: {}\n").0, Some(1));
}

#[test]
fn auth_off_is_refused_beyond_loopback() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").display().to_string();
    let (code, out) = run(&["serve", "--data", &data, "--listen", "0.0.0.0:0", "--auth", "off"]).unwrap();
    assert_eq!((code, out.as_str()), (Some(1), ""));
}
