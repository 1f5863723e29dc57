//! One client of the server, as `CLIENT LIST` shows it.

use std::collections::BTreeMap;

/// Flags of connections that belong to the replication between servers.
const REPLICATION_FLAGS: [char; 2] = ['M', 'S'];
/// Flags of a client that stays in its last command, with what that means.
const LASTING_FLAGS: [(char, &str); 4] = [
    ('b', "blocked in"),
    ('x', "in a transaction with"),
    ('P', "subscribed with"),
    ('O', "watching all commands with"),
];

/// One client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RedisClient {
    /// The fields in which the server describes it.
    pub(super) fields: BTreeMap<String, String>,
}

impl RedisClient {
    /// Parses the lines of `CLIENT LIST`.
    pub(super) fn parse_list(text: &str) -> Vec<Self> {
        let parse = |line: &str| {
            let pairs = line.split(' ').filter_map(|field| field.split_once('='));
            Self { fields: pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect() }
        };
        text.lines().map(parse).filter(|client| client.fields.contains_key("id")).collect()
    }

    pub(super) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// The precondition of a plan: server process, client, and who that is. The server counts clients from its start on
    /// and uses no number twice.
    pub(super) fn fingerprint(&self, run_id: &str) -> String {
        let [id, address, name, user] = ["id", "addr", "name", "user"].map(|field| self.field(field));
        format!("run={run_id} id={id} addr={address} name={name} user={user}{}", self.lasting_state())
    }

    /// Says why this client must not be disconnected; `None` if it may be.
    pub(super) fn refusal(&self, own_id: u64) -> Option<String> {
        let id = self.field("id");
        if id == own_id.to_string() {
            return Some(format!("client {id} is the connection of this tool"));
        }
        let is_replication = self.field("flags").contains(REPLICATION_FLAGS);
        is_replication.then(|| format!("client {id} is a link of the replication; the server needs it"))
    }

    /// Says who this is and what it does, on one line, without data. What a client does that runs one command after the
    /// other is not said: it changes all the time, and each change would make the plan stale.
    pub(super) fn description(&self) -> String {
        let name = match self.field("name") {
            "" => "unnamed",
            name => name,
        };
        let state = match self.lasting_state() {
            state if state.is_empty() => " runs commands one after the other".to_owned(),
            state => format!(" is{state}"),
        };
        let [id, user, address, database] = ["id", "user", "addr", "db"].map(|field| self.field(field));
        format!("client {id} ({name}, user {user}, address {address}, database {database}){state}")
    }

    fn lasting_state(&self) -> String {
        let flags = self.field("flags");
        let state = LASTING_FLAGS.iter().find(|(flag, _)| flags.contains(*flag));
        state.map(|(_, meaning)| format!(" {meaning} {}", self.field("cmd"))).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "id=3 addr=127.0.0.1:1 name= age=9 idle=0 flags=N db=0 cmd=client|list user=default\n\
        id=4 addr=10.0.0.3:5 name=checkout age=9 idle=8 flags=b db=2 cmd=blpop user=app\n\
        id=5 addr=10.0.0.4:5 name= age=9 idle=8 flags=S db=0 cmd=replconf user=default\n";

    #[test]
    fn lists_are_parsed_and_described() {
        let clients = RedisClient::parse_list(LIST);
        let descriptions: Vec<String> = clients.iter().map(RedisClient::description).collect();
        assert_eq!(
            descriptions[..2],
            [
                "client 3 (unnamed, user default, address 127.0.0.1:1, database 0) runs commands one after the other",
                "client 4 (checkout, user app, address 10.0.0.3:5, database 2) is blocked in blpop",
            ]
        );
        assert_eq!(clients[1].fingerprint("r"), "run=r id=4 addr=10.0.0.3:5 name=checkout user=app blocked in blpop");
    }

    #[test]
    fn replication_and_this_tool_are_not_disconnected() {
        let clients = RedisClient::parse_list(LIST);
        assert!(clients[0].refusal(3).unwrap().contains("this tool"));
        assert_eq!(clients[1].refusal(3), None);
        assert!(clients[2].refusal(3).unwrap().contains("replication"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_accepted(text in "[a-z0-9= \n|]{0,80}") {
            for client in RedisClient::parse_list(&text) {
                client.description();
            }
        }
    }
}
