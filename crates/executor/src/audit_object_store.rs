//! Signs requests for an object store, so that a bucket with versions can keep heads of the audit log.
//!
//! Problem: Amazon S3 and what speaks its protocol know no bearer tokens; each request has a signature of its headers
//! and its content (AWS Signature Version 4). Model: the `object_store` crate signs, and the executor's own HTTP client
//! sends, so that the same rules hold for addresses, redirects and timeouts as for every request of a tool. Guarantee:
//! the secret key is in no request, error or log, and a head that is changed on the way is refused.

use std::sync::Once;

use http::HeaderValue;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_tools::http_client::{HttpRequest, HttpResponse};
use wardroom_tools::{Context, Secret};

/// Name of the service in signatures.
const SERVICE: &str = "s3";
/// Header of a response that says which version of the object was written: only a bucket with versions sends it.
const VERSION_HEADER: &str = "x-amz-version-id";
/// Longest code of an error that is shown, in characters.
const MAX_CODE_CHARS: usize = 60;

/// How requests to an object store with Amazon's protocol are signed.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ObjectStoreSigning {
    /// Region of the bucket, such as `eu-central-1`; stores without regions take `us-east-1` or `auto`. Since 0.2.
    pub region: String,
    /// Id of the access key. It needs no right but `s3:PutObject` below the URL. Since 0.2.
    pub access_key_id: String,
    /// The secret of the access key, by reference as for targets. Since 0.2.
    pub secret_access_key: Secret,
    /// Session token, if the access key is a temporary one. Since 0.2.
    #[serde(default)]
    pub session_token: Option<Secret>,
}

impl ObjectStoreSigning {
    /// Checks the fields, without contacting anything.
    ///
    /// # Errors
    /// Returns field and reason.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (field, value) in [("region", &self.region), ("access-key-id", &self.access_key_id)] {
            if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
                return Err(format!("{field}: letters, digits, '-', '_' and '.' only"));
            }
        }
        let problem = |error: wardroom_tools::SettingError| error.to_string();
        self.secret_access_key.check("secret-access-key").map_err(problem)?;
        self.session_token.as_ref().map_or(Ok(()), |token| token.check("session-token")).map_err(problem)
    }

    /// Signs a request.
    ///
    /// # Errors
    /// Returns an error if a credential cannot be resolved, or the request cannot be signed.
    pub(crate) fn sign(&self, mut request: HttpRequest, context: &Context) -> Result<HttpRequest, String> {
        let resolve = |secret: &Secret| {
            let value = context.secrets.resolve(secret).map_err(|error| error.to_string())?;
            let text = value.as_str().to_owned();
            // The signer takes for granted that it is the value of a header.
            HeaderValue::from_str(&text)
                .map(|_| text)
                .map_err(|_| "a credential has a line end or is not ASCII".to_owned())
        };
        let credential = AwsCredential {
            key_id: self.access_key_id.clone(),
            secret_key: resolve(&self.secret_access_key)?,
            token: self.session_token.as_ref().map(resolve).transpose()?,
        };
        let mut builder = http::Request::builder().method(request.method.as_str()).uri(&request.url);
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        let body = HttpRequestBody::from(request.body.clone().unwrap_or_default());
        let mut signed = builder.body(body).map_err(|error| error.to_string())?;
        AwsAuthorizer::new(&credential, SERVICE, &self.region).authorize(&mut signed, None);
        request.headers = signed
            .headers()
            .iter()
            // The client sends it itself, with the same value.
            .filter(|(name, _)| *name != http::header::HOST)
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
            .collect();
        Ok(request)
    }
}

/// Says once that a bucket keeps no versions: what was published could be replaced in it.
pub(crate) fn warn_without_versions(response: &HttpResponse, url: &str) {
    static WARNING: Once = Once::new();
    if response.header(VERSION_HEADER).is_none_or(|version| version == "null") {
        WARNING.call_once(|| {
            tracing::warn!(url, "the bucket keeps no versions of heads; turn on versioning, or object lock");
        });
    }
}

/// Returns the code of the store's error, such as `SignatureDoesNotMatch`, in brackets; empty if there is none.
pub(crate) fn error_code(response: &HttpResponse) -> String {
    let text = response.text();
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let code: String = code.map(|(code, _)| code.chars().take(MAX_CODE_CHARS).collect()).unwrap_or_default();
    let is_word = !code.is_empty() && code.chars().all(|letter| letter.is_ascii_alphanumeric());
    if is_word { format!(" ({code})") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn signing(region: &str) -> ObjectStoreSigning {
        serde_json::from_value(json!({
            "region": region, "access-key-id": "AKIDEXAMPLE", "secret-access-key": "the secret key"
        }))
        .unwrap()
    }

    #[test]
    fn a_signed_request_has_no_secret_in_it() {
        let request = HttpRequest::new("PUT", "http://127.0.0.1:9000/audit/000000000042.json", Duration::from_secs(1))
            .json(&json!({ "head": 42 }));
        let signed = signing("eu-central-1").sign(request.clone(), &Context::of_descriptions()).unwrap();
        assert_eq!((&signed.url, &signed.body), (&request.url, &request.body));
        let header =
            |name: &str| signed.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        let authorization = header("authorization").unwrap();
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"), "{authorization}");
        assert!(authorization.contains("/eu-central-1/s3/aws4_request"), "{authorization}");
        // SHA-256 of the body: another body needs another signature.
        let digest = wardroom_domain::canonical::sha256_hex(signed.body.as_deref().unwrap());
        assert_eq!(header("x-amz-content-sha256"), Some(digest.as_str()));
        assert!(header("host").is_none() && header("content-type") == Some("application/json"));
        assert!(!format!("{signed:?}").contains("the secret key"));
    }

    #[test]
    fn fields_that_would_be_in_a_header_are_checked() {
        for region in ["", "eu central", "x\r\nhost: evil"] {
            assert!(signing(region).check().unwrap_err().starts_with("region: "), "{region:?}");
        }
        signing("auto").check().unwrap();
    }

    #[test]
    fn the_code_of_an_error_is_shown_and_nothing_else() {
        let response = |body: &str| HttpResponse { status: 403, headers: Vec::new(), body: body.as_bytes().to_vec() };
        let xml = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>x</Message></Error>";
        assert_eq!(error_code(&response(xml)), " (SignatureDoesNotMatch)");
        for other in ["", "<Code></Code>", "<Code>a secret!</Code>", "<Code>x"] {
            assert_eq!(error_code(&response(other)), "", "{other}");
        }
    }
}
