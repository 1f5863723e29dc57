//! Requests in Cedar's terms.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::str::FromStr;

use cedar_policy::{
    Context as CedarContext, Entities, Entity as CedarEntity, EntityId, EntityTypeName, EntityUid, Request,
    RestrictedExpression, Schema,
};
use wardroom_domain::AccessRole;

use crate::request::{ActionRequest, Actor, ActorKind, ApprovalRequest, Context, Target};

/// Risk words that rules can rely on; any other is judged as the last.
pub(crate) const RISKS: [&str; 5] = ["none", "low", "medium", "high", "critical"];

/// A request in Cedar's terms, for any of the actions with this context.
#[derive(Clone)]
pub(crate) struct CedarRequest {
    principal: EntityUid,
    resource: EntityUid,
    context: CedarContext,
    pub(crate) entities: Entities,
}

impl CedarRequest {
    /// Translates the request for an action.
    ///
    /// # Errors
    /// Returns Cedar's message if a value cannot be represented.
    pub(crate) fn of_action(request: &ActionRequest, schema: &Schema) -> Result<Self, String> {
        let context = action_context(request);
        Self::new(&request.principal, &request.target, context, schema)
    }

    /// Translates the request for an approval.
    ///
    /// # Errors
    /// See [`CedarRequest::of_action`].
    pub(crate) fn of_approval(request: &ApprovalRequest, schema: &Schema) -> Result<Self, String> {
        let approvals = i64::try_from(request.approved_by.len()).unwrap_or(i64::MAX);
        let context = vec![
            text("risk", known_risk(&request.risk)),
            text("channel", &request.channel),
            long("approvals", approvals),
        ];
        Self::new(&request.approver, &request.target, context, schema)
    }

    fn new(
        actor: &Actor,
        target: &Target,
        context: Vec<(String, RestrictedExpression)>,
        schema: &Schema,
    ) -> Result<Self, String> {
        let actor_type = match actor.kind {
            ActorKind::Person => "Person",
            ActorKind::Service => "Service",
        };
        let principal = uid(actor_type, actor.principal.as_str())?;
        let resource = uid("Target", &target_id(target))?;
        let role = actor.role.map_or("", AccessRole::as_str);
        let actor_attributes = HashMap::from([text("name", actor.principal.as_str()), text("role", role)]);
        let entities =
            [entity(principal.clone(), actor_attributes)?, entity(resource.clone(), target_attributes(target))?];
        let entities = Entities::from_entities(entities, Some(schema)).map_err(|error| error.to_string())?;
        let context = CedarContext::from_pairs(context).map_err(|error| error.to_string())?;
        Ok(Self { principal, resource, context, entities })
    }

    /// Returns the request for one action of the schema.
    ///
    /// # Errors
    /// Returns Cedar's message if the request does not fit the schema.
    pub(crate) fn with_action(&self, action: &str, schema: &Schema) -> Result<Request, String> {
        let (principal, resource) = (self.principal.clone(), self.resource.clone());
        Request::new(principal, uid("Action", action)?, resource, self.context.clone(), Some(schema))
            .map_err(|error| error.to_string())
    }
}

/// Returns a risk word that rules know.
fn known_risk(risk: &str) -> &'static str {
    let [.., strictest] = RISKS;
    RISKS.into_iter().find(|known| *known == risk).unwrap_or(strictest)
}

fn action_context(request: &ActionRequest) -> Vec<(String, RestrictedExpression)> {
    let Context {
        risk,
        reversible,
        blast_radius,
        confidence_percent,
        evidence_age_seconds,
        at: _,
        windows,
        freezes,
        cause,
        successes,
        failures,
        autonomy,
        actions_last_hour,
        break_glass,
    } = &request.context;
    let mut pairs = vec![
        text("tool", &request.tool),
        text("operation", &request.operation),
        text("target", &request.target.name),
        text("risk", known_risk(risk)),
        flag("reversible", *reversible),
        text("cause", cause),
        set("windows", windows),
        set("freezes", freezes),
        number("successes", *successes),
        number("failures", *failures),
        text("autonomy", autonomy.as_str()),
        number("actions_last_hour", *actions_last_hour),
        flag("break_glass", *break_glass),
    ];
    pairs.extend(blast_radius.map(|count| long("blast_radius", i64::try_from(count).unwrap_or(i64::MAX))));
    pairs.extend(confidence_percent.map(|percent| number("confidence", percent)));
    pairs.extend(evidence_age_seconds.map(|seconds| number("evidence_age_seconds", seconds)));
    pairs
}

fn target_attributes(target: &Target) -> HashMap<String, RestrictedExpression> {
    let entity = &target.entity;
    HashMap::from([
        text("kind", entity.kind.as_str()),
        text("name", &entity.name),
        text("namespace", &entity.namespace),
        text("cluster", &entity.cluster),
        text("environment", &entity.environment),
        text("criticality", target.criticality.as_str()),
        text("owner", &target.owner),
        flag("is_wardroom", target.is_wardroom),
    ])
}

/// The id of a target in rules: `environment/cluster/namespace/name`, for policies about one target.
fn target_id(target: &Target) -> String {
    let entity = &target.entity;
    format!("{}/{}/{}/{}", entity.environment, entity.cluster, entity.namespace, entity.name)
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, String> {
    let kind = EntityTypeName::from_str(kind).map_err(|error| error.to_string())?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
}

fn entity(uid: EntityUid, attributes: HashMap<String, RestrictedExpression>) -> Result<CedarEntity, String> {
    CedarEntity::new(uid, attributes, HashSet::new()).map_err(|error| error.to_string())
}

fn text(name: &str, value: &str) -> (String, RestrictedExpression) {
    (name.to_owned(), RestrictedExpression::new_string(value.to_owned()))
}

fn flag(name: &str, value: bool) -> (String, RestrictedExpression) {
    (name.to_owned(), RestrictedExpression::new_bool(value))
}

fn number(name: &str, value: u32) -> (String, RestrictedExpression) {
    long(name, i64::from(value))
}

fn long(name: &str, value: i64) -> (String, RestrictedExpression) {
    (name.to_owned(), RestrictedExpression::new_long(value))
}

fn set(name: &str, values: &BTreeSet<String>) -> (String, RestrictedExpression) {
    let values = values.iter().map(|value| RestrictedExpression::new_string(value.clone()));
    (name.to_owned(), RestrictedExpression::new_set(values))
}
