//! How the page of an incident asks for an approval: by what the executor accepts from this caller, or why it would
//! accept nothing.

use maud::{Markup, html};

use crate::access_backend::{Asking, MayApprove};
use crate::views::{IncidentDetail, PlanView};

/// What the form of an approval is made of.
pub(crate) struct ApprovalForm<'a> {
    /// Who looks at the page.
    pub(crate) caller: &'a Asking,
    /// Whether they may approve, and by what.
    pub(crate) approval: &'a MayApprove,
    /// The token of the page's form.
    pub(crate) token: &'a str,
    /// Whether callers are authenticated.
    pub(crate) authenticated: bool,
}

impl ApprovalForm<'_> {
    /// Renders the form, or the reason why there is none.
    pub(crate) fn render(&self, detail: &IncidentDetail, plan: &PlanView) -> Markup {
        let MayApprove { may_approve, reason, proofs, providers, .. } = self.approval;
        let has = |proof: &str| proofs.iter().any(|known| known == proof);
        let id = &detail.summary.id;
        html! {
            @if *may_approve {
                @if has("passkey") { (self.passkey_button(id, &plan.plan_sha256)) }
                @for provider in providers.iter().filter(|_| has("oidc")) {
                    p { a class="button" href={ "../auth/oidc/" (provider) "/approve?incident=" (id) "&plan_sha256="
                        (plan.plan_sha256) } { "Approve with " (provider) } }
                }
                @if has("token") || !self.authenticated { (self.token_form(id, &plan.plan_sha256)) }
                @if has("ssh") {
                    p { small { "Sign the plan with your key: "
                        code { "wardroom incidents approve " (id) " --key FILE" } } }
                }
            } @else {
                p class="reason" { "You cannot approve this plan: " (reason.as_deref().unwrap_or("no proof of yours counts")) }
            }
        }
    }

    fn passkey_button(&self, id: &str, plan_sha256: &str) -> Markup {
        let csrf = self.caller.session.as_ref().map(|session| session.csrf_token.as_str()).unwrap_or_default();
        html! {
            p { label { "Reason " input id="passkey-reason" maxlength="200"; } " "
                button type="button" id="passkey-approve" data-incident=(id) data-plan=(plan_sha256) data-csrf=(csrf) {
                    "Approve with a passkey" } " "
                span id="passkey-error" role="alert" {} }
        }
    }

    fn token_form(&self, id: &str, plan_sha256: &str) -> Markup {
        // Basic authentication brings the token with every request; a session and no authentication do not.
        let asks = !self.authenticated || self.caller.session.is_some();
        html! {
            form method="post" action={ (id) "/approve" } {
                input type="hidden" name="plan_sha256" value=(plan_sha256);
                input type="hidden" name="form_token" value=(self.token);
                @if asks { label { "Approver's token " input type="password" name="proof" autocomplete="off"; } " " }
                label { "Reason " input name="reason" maxlength="200"; } " "
                button { "Approve" }
            }
            p { small { "This button sends a token, which counts only for approvers who are listed with "
                code { "proof: token" } ". Otherwise sign the plan: "
                code { "wardroom incidents approve " (id) " --key FILE" } } }
        }
    }
}
