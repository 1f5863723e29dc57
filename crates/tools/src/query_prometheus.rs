//! `query_prometheus`: asks a Prometheus, VictoriaMetrics, Thanos or Mimir, and changes nothing.
//!
//! `POST {url}/api/v1/query` and `…/query_range` with a form. The number of points is limited before the query is sent,
//! and the number of series in the result, so that a wide query costs neither the server nor the reader.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wardroom_domain::ToolCall;
use wardroom_respond::{Tool, ToolError, ToolSpec, parse_arguments, read_operation};

use crate::http_client::{HttpClient, HttpRequest, check_url};
use crate::secrets::Secrets;
use crate::{Context, Declared, Secret, SettingError, ToolKind};

/// Most points of one series, Prometheus' own limit.
const MAX_POINTS: u64 = 11_000;
/// Default of the argument `series`.
const DEFAULT_SERIES: usize = 50;
/// Default limit of a result, in bytes.
const OUTPUT_BYTES: usize = 256 << 10;

/// The `query_prometheus` tool.
#[derive(Debug)]
pub(crate) struct QueryPrometheusTool {
    targets: Vec<Declared<Settings>>,
    http: HttpClient,
    secrets: Secrets,
}

/// Fields of a target of `query_prometheus`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Settings {
    /// Base URL, to which `/api/v1/query` is appended, such as `http://prometheus:9090` or
    /// `https://mimir.example/prometheus`.
    url: String,
    /// Bearer token.
    #[serde(default)]
    token: Option<Secret>,
    /// Further headers, such as `X-Scope-OrgID` for a tenant of Mimir.
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
}

/// Arguments of `instant`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct InstantArguments {
    /// The query in PromQL.
    #[schemars(length(min = 1, max = 4000))]
    query: String,
    /// Time of the evaluation, in seconds since 1970. Default: the server's present time.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1e11))]
    time_seconds: Option<f64>,
    /// Most series that are returned, the first of the result. Default 50.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    series: Option<u32>,
}

/// Arguments of `range`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RangeArguments {
    /// The query in PromQL.
    #[schemars(length(min = 1, max = 4000))]
    query: String,
    /// Length of the range, in minutes.
    #[schemars(range(min = 1, max = 44640))]
    minutes: u32,
    /// Interval between two points, in seconds.
    #[schemars(range(min = 1, max = 86400))]
    step_seconds: u32,
    /// End of the range, in seconds since 1970. Default: the server's present time.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1e11))]
    end_seconds: Option<f64>,
    /// Most series that are returned, the first of the result. Default 50.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    series: Option<u32>,
}

impl ToolKind for QueryPrometheusTool {
    const NAME: &'static str = "query_prometheus";
    type Settings = Settings;

    fn check_settings(settings: &Settings) -> Result<(), SettingError> {
        check_url(&settings.url).map_err(|reason| SettingError::new("url", reason))?;
        settings.token.iter().try_for_each(|token| token.check("token"))?;
        settings.headers.iter().try_for_each(|(name, value)| value.check(&format!("headers.{name}")))
    }

    fn new(targets: Vec<Declared<Settings>>, context: Context) -> Self {
        Self { targets, http: context.http(), secrets: context.secrets }
    }
}

impl QueryPrometheusTool {
    fn query(
        &self,
        call: &ToolCall,
        path: &str,
        fields: &[(&str, String)],
        timeout: Duration,
    ) -> Result<Value, ToolError> {
        let target = self.targets.iter().find(|target| target.name() == call.target);
        let target = target.ok_or_else(|| ToolError::Invalid("the target is not declared".to_owned()))?;
        let url = format!("{}/api/v1/{path}", target.settings.url.trim_end_matches('/'));
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields).append_pair("timeout", &format!("{}s", timeout.as_secs().max(1)));
        let mut request = HttpRequest::new("POST", url, timeout);
        request.body = Some(form.finish().into_bytes());
        request = request.header("Content-Type", "application/x-www-form-urlencoded");
        if let Some(token) = &target.settings.token {
            request = request.header("Authorization", format!("Bearer {}", self.secrets.resolve(token)?.as_str()));
        }
        for (name, value) in &target.settings.headers {
            request = request.header(name, self.secrets.resolve(value)?.as_str());
        }
        let response = self.http.send(request)?;
        let body = response.json();
        if !response.is_success() {
            let detail = body.ok().and_then(|body| body["error"].as_str().map(str::to_owned)).unwrap_or_default();
            let text = format!("the server responds with {}: {detail}", response.status);
            let is_callers = (400..500).contains(&response.status) && response.status != 429;
            return Err(if is_callers { ToolError::Invalid(text) } else { ToolError::Unavailable(text) });
        }
        let body = body?;
        if body["status"] != "success" {
            return Err(ToolError::Unavailable("the response is not one of Prometheus' API".to_owned()));
        }
        Ok(body)
    }

    /// Returns the server's time, in seconds since 1970.
    fn server_time(&self, call: &ToolCall, timeout: Duration) -> Result<f64, ToolError> {
        let body = self.query(call, "query", &[("query", "time()".to_owned())], timeout)?;
        let time = body["data"]["result"][1].as_str().and_then(|time| time.parse().ok());
        time.ok_or_else(|| ToolError::Unavailable("the server does not say its time".to_owned()))
    }
}

impl Tool for QueryPrometheusTool {
    fn spec(&self) -> ToolSpec {
        let operations = vec![
            read_operation::<InstantArguments>("instant", "evaluate a PromQL query at one time"),
            read_operation::<RangeArguments>("range", "evaluate a PromQL query over a range of time"),
        ];
        let spec = ToolSpec::new("query_prometheus", "read metrics from a Prometheus-compatible server", operations);
        ToolSpec { timeout: Duration::from_secs(30), output_bytes: OUTPUT_BYTES, ..spec }
    }

    fn check(&self, call: &ToolCall) -> Result<(), ToolError> {
        if call.operation != "range" {
            return parse_arguments::<InstantArguments>(&call.arguments).map(drop);
        }
        let arguments: RangeArguments = parse_arguments(&call.arguments)?;
        let points = u64::from(arguments.minutes) * 60 / u64::from(arguments.step_seconds.max(1));
        if points <= MAX_POINTS {
            return Ok(());
        }
        Err(ToolError::Invalid(format!("{points} points a series are more than {MAX_POINTS}: choose a longer step")))
    }

    fn read(&self, call: &ToolCall, timeout: Duration) -> Result<Value, ToolError> {
        let (body, series) = if call.operation == "range" {
            let arguments: RangeArguments = parse_arguments(&call.arguments)?;
            let end = arguments.end_seconds.map_or_else(|| self.server_time(call, timeout), Ok)?;
            let start = end - f64::from(arguments.minutes) * 60.0;
            let fields = [
                ("query", arguments.query),
                ("start", start.to_string()),
                ("end", end.to_string()),
                ("step", arguments.step_seconds.to_string()),
            ];
            (self.query(call, "query_range", &fields, timeout)?, arguments.series)
        } else {
            let arguments: InstantArguments = parse_arguments(&call.arguments)?;
            let time = arguments.time_seconds.map(|time| ("time", time.to_string()));
            let fields: Vec<_> = [("query", arguments.query)].into_iter().chain(time).collect();
            (self.query(call, "query", &fields, timeout)?, arguments.series)
        };
        Ok(summarise(body, series.map_or(DEFAULT_SERIES, |series| series as usize)))
    }
}

/// Returns the first series of a result, with their number.
fn summarise(mut body: Value, most: usize) -> Value {
    let mut data = body["data"].take();
    let kind = data["resultType"].take();
    let is_list = matches!(kind.as_str(), Some("vector" | "matrix"));
    let (result, total) = match data["result"].take() {
        Value::Array(series) if is_list => {
            let total = series.len();
            (Value::Array(series.into_iter().take(most).collect()), total)
        }
        result => (result, 1),
    };
    json!({ "type": kind, "series_total": total, "result": result, "warnings": body["warnings"] })
}
