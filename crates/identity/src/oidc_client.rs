//! Requests to an issuer: discovery, keys, and the exchange of a code. Blocking; limited in time and size.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use url::form_urlencoded;

use crate::config::is_issuer;
use crate::jwk_set::JwkSet;

/// Time for a whole request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of a response.
const MAX_RESPONSE_BYTES: u64 = 1 << 20;

/// An issuer cannot be reached, or its response cannot be used. No error repeats a secret or a code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url}: {reason}")]
pub struct IssuerError {
    /// The URL.
    pub url: String,
    /// What is wrong, and what may help.
    pub reason: String,
}

/// What an issuer says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct IssuerMetadata {
    /// The issuer, as it writes itself.
    pub issuer: String,
    /// The page on which people log in.
    #[serde(default)]
    pub authorization_endpoint: String,
    /// Where a code is exchanged.
    #[serde(default)]
    pub token_endpoint: String,
    /// Where the keys are.
    pub jwks_uri: String,
    /// How a client may prove its secret; empty means `client_secret_basic`.
    #[serde(default)]
    pub token_endpoint_auth_methods_supported: Vec<String>,
}

impl IssuerMetadata {
    /// Whether the secret is sent in the header, which is the default of the standard.
    fn takes_basic(&self) -> bool {
        let methods = &self.token_endpoint_auth_methods_supported;
        methods.is_empty() || methods.iter().any(|method| method == "client_secret_basic")
    }
}

/// A code with what proves that this client asked for it.
#[derive(Clone, Copy)]
pub struct CodeExchange<'a> {
    /// The client's id.
    pub client_id: &'a str,
    /// The client's secret, if it has one.
    pub client_secret: Option<&'a str>,
    /// The code.
    pub code: &'a str,
    /// PKCE's verifier.
    pub verifier: &'a str,
    /// As in the request for the code.
    pub redirect: &'a str,
}

impl std::fmt::Debug for CodeExchange<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeExchange").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// Makes the requests to issuers.
#[derive(Clone, Debug)]
pub struct IssuerClient {
    agent: ureq::Agent,
}

#[derive(Debug, Deserialize)]
struct TokenResponse {
    id_token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct TokenErrorResponse {
    error: Option<String>,
    error_description: Option<String>,
}

impl IssuerClient {
    /// Creates a client that trusts the authorities of a PEM file, or the public ones.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or has no certificate.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, IssuerError> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(REQUEST_TIMEOUT))
            // Another address than the configured one could belong to an attacker.
            .max_redirects(0)
            .http_status_as_error(false);
        let config = match ca_file {
            Some(path) => config.tls_config(TlsConfig::builder().root_certs(read_certificates(path)?).build()),
            None => config,
        };
        Ok(Self { agent: config.build().into() })
    }

    /// Reads what an issuer says about itself, and checks that it is the configured one.
    ///
    /// # Errors
    /// Returns an error if it cannot be reached, says something else, or names a URL without TLS.
    pub fn discover(&self, issuer: &str) -> Result<IssuerMetadata, IssuerError> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let metadata: IssuerMetadata = parse(&url, &self.get(&url)?)?;
        let failed = |reason: String| IssuerError { url: url.clone(), reason };
        if metadata.issuer != issuer {
            let found: String = metadata.issuer.chars().take(200).collect();
            return Err(failed(format!("the issuer writes itself {found:?}; configure it exactly so")));
        }
        for endpoint in [&metadata.authorization_endpoint, &metadata.token_endpoint, &metadata.jwks_uri] {
            if !endpoint.is_empty() && !is_issuer(endpoint) {
                return Err(failed("it names an endpoint without https".to_owned()));
            }
        }
        Ok(metadata)
    }

    /// Reads the keys at a URL.
    ///
    /// # Errors
    /// Returns an error if it cannot be reached or has no key that can be used.
    pub fn keys(&self, url: &str) -> Result<JwkSet, IssuerError> {
        JwkSet::parse(&self.get(url)?).map_err(|reason| IssuerError { url: url.to_owned(), reason })
    }

    /// Reads the keys of an issuer: at a URL, or where its discovery document says.
    ///
    /// # Errors
    /// See [`IssuerClient::discover`] and [`IssuerClient::keys`].
    pub fn keys_of(&self, issuer: &str, jwks_url: Option<&str>) -> Result<JwkSet, IssuerError> {
        match jwks_url {
            Some(url) => self.keys(url),
            None => self.keys(&self.discover(issuer)?.jwks_uri),
        }
    }

    /// Exchanges a code for an ID token.
    ///
    /// # Errors
    /// Returns an error if the provider refuses it, with its reason.
    pub fn exchange(&self, issuer: &IssuerMetadata, exchange: CodeExchange<'_>) -> Result<String, IssuerError> {
        let endpoint = issuer.token_endpoint.as_str();
        let failed = |reason: String| IssuerError { url: endpoint.to_owned(), reason };
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", exchange.code),
            ("redirect_uri", exchange.redirect),
            ("code_verifier", exchange.verifier),
        ];
        let mut request = self.agent.post(endpoint).header("Accept", "application/json");
        match exchange.client_secret {
            Some(secret) if issuer.takes_basic() => {
                let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = format!("{}:{}", encode(exchange.client_id), encode(secret));
                request = request.header("Authorization", format!("Basic {}", STANDARD.encode(pair)));
            }
            secret => {
                form.push(("client_id", exchange.client_id));
                form.extend(secret.map(|secret| ("client_secret", secret)));
            }
        }
        let response = request.send_form(form);
        let (status, text) = read(response).map_err(failed)?;
        if status != 200 {
            let said: Option<TokenErrorResponse> = serde_json::from_str(&text).ok();
            let said = said.map(|said| [said.error, said.error_description].into_iter().flatten().collect::<Vec<_>>());
            let said: String = said.unwrap_or_default().join(": ").chars().take(300).collect();
            return Err(failed(format!("the code was refused with status {status}: {said}")));
        }
        let response: TokenResponse = parse(endpoint, &text)?;
        response.id_token.ok_or_else(|| failed("the response has no ID token; is the scope openid allowed?".to_owned()))
    }

    fn get(&self, url: &str) -> Result<String, IssuerError> {
        let failed = |reason: String| IssuerError { url: url.to_owned(), reason };
        let response = self.agent.get(url).header("Accept", "application/json").call();
        match read(response).map_err(failed)? {
            (200, text) => Ok(text),
            (status, _) => Err(failed(format!("status {status}"))),
        }
    }
}

fn read(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<(u16, String), String> {
    let mut response = response.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let text = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_string();
    Ok((status, text.map_err(|error| error.to_string())?))
}

fn parse<T: for<'de> Deserialize<'de>>(url: &str, text: &str) -> Result<T, IssuerError> {
    let unreadable = |_| "the response is not the expected JSON".to_owned();
    serde_json::from_str(text).map_err(|error| IssuerError { url: url.to_owned(), reason: unreadable(error) })
}

fn read_certificates(path: &Path) -> Result<RootCerts, IssuerError> {
    let failed = |reason: String| IssuerError { url: path.display().to_string(), reason };
    let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(failed("there is no certificate in it".to_owned()));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}
