//! JSON ingest with the commands of the documentation.

use serde_json::Value;

use crate::server;

#[test]
fn accepts_the_commands_of_the_documentation() {
    let (_dir, server) = server();
    let page = include_str!("../../../../docs/sources/json.md");
    let (_, rest) = page.split_once("```sh sender\n").unwrap();
    let (commands, _) = rest.split_once("```").unwrap();
    let commands: Vec<&str> = commands.split("curl ").filter(|command| !command.is_empty()).collect();
    assert_eq!(commands.len(), 3);
    for command in commands {
        let body = command.split('\'').nth(3).unwrap();
        let path = command.split("127.0.0.1:8080").nth(1).unwrap().trim();
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(server.post_json(path, &server.sender_token, &body).unwrap().0, 200, "{command}");
    }
}
