//! One port with one route that requires the role viewer: `cargo run -p wardroom-edge --example port`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "an example may unwrap and print")]

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use tower::ServiceExt;
use wardroom_domain::{AccessRole, Identity, Principal, TenantId, Timestamp};
use wardroom_edge::{Access, AuthMode, Callers, KnownToken, Port, Routes, TokenTable, generate_token};

#[tokio::main]
async fn main() {
    let tokens = TokenTable::new(AuthMode::On);
    let (token, sha256) = generate_token();
    let identity =
        Identity { tenant: TenantId::main(), principal: Principal::new("vera").unwrap(), role: AccessRole::Viewer };
    tokens.replace(Some(vec![KnownToken { sha256, identity, expires_at: None }]));
    let port = Port {
        config: Arc::default(),
        tokens,
        callers: Callers::default(),
        on_rejection: Arc::new(|_| {}),
        now: Arc::new(|| Timestamp::from_millis(0)),
    };
    let router = port.router(Routes::new().get("/hello", Access::Read, async || "hello"));
    for credential in ["wr_wrong".to_owned(), token] {
        let request = Request::get("/hello").header("authorization", format!("Bearer {credential}"));
        let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        println!("{}", response.status());
    }
}
