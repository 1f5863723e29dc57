//! Cookies of this server: how they are written, and how one is found in a request.

use std::time::Duration;

/// Name of the session's cookie.
const SESSION: &str = "wardroom-session";
/// Name of the cookie of a login that has begun.
const LOGIN: &str = "wardroom-login";
/// Time in which a login has to end.
const LOGIN_LIFETIME: Duration = Duration::from_secs(600);

/// A cookie of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cookie {
    /// The secret of a session.
    Session,
    /// A login that has begun.
    Login,
}

impl Cookie {
    /// Returns the name. With TLS it has a prefix, so that no other host of the domain can set it.
    fn name(self, is_secure: bool) -> String {
        let name = match self {
            Self::Session => SESSION,
            Self::Login => LOGIN,
        };
        if is_secure { format!("__Host-{name}") } else { name.to_owned() }
    }

    /// Returns the header `Set-Cookie` for a value.
    ///
    /// The session's is `Lax`: a link in a chat opens the page. The provider's answer to a login is such a link, too.
    pub fn set(self, value: &str, is_secure: bool) -> String {
        let lifetime = match self {
            Self::Session => String::new(),
            Self::Login => format!("; Max-Age={}", LOGIN_LIFETIME.as_secs()),
        };
        let secure = if is_secure { "; Secure" } else { "" };
        format!("{}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{lifetime}", self.name(is_secure))
    }

    /// Returns the header `Set-Cookie` that removes it.
    pub fn clear(self, is_secure: bool) -> String {
        format!("{}; Max-Age=0", self.set("", is_secure))
    }

    /// Finds the value in the headers `Cookie` of a request. The protected name wins.
    pub fn find<'a>(self, headers: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        let headers: Vec<&str> = headers.collect();
        [true, false].into_iter().find_map(|is_secure| {
            let name = self.name(is_secure);
            let pairs = headers.iter().flat_map(|header| header.split(';'));
            let mut pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(found, _)| *found == name).map(|(_, value)| value).filter(|value| !value.is_empty())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others_and_the_protected_one_wins() {
        let find = |headers: &[&'static str]| Cookie::Session.find(headers.iter().copied());
        assert_eq!(find(&["a=b; wardroom-session=x=y; c=d"]), Some("x=y"));
        assert_eq!(find(&["wardroom-session=x", "__Host-wardroom-session=y"]), Some("y"));
        assert_eq!(find(&["wardroom-sessions=x", "wardroom-login=x", "wardroom-session="]), None);
    }

    #[test]
    fn cookies_are_for_this_server_only() {
        assert_eq!(Cookie::Session.set("x", true), "__Host-wardroom-session=x; Path=/; HttpOnly; SameSite=Lax; Secure");
        assert_eq!(Cookie::Login.set("x", false), "wardroom-login=x; Path=/; HttpOnly; SameSite=Lax; Max-Age=600");
        assert!(Cookie::Session.clear(true).ends_with("; Secure; Max-Age=0"));
    }
}
