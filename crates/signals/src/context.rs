//! What the rules need to know of one series: its labels, and what the entity rules find in them.

use wardroom_domain::entity_names::{authority_of, host_of, is_loopback, service_dns, workload_of_pod};
use wardroom_domain::{Entity, EntityKind, EntityRules, Labels};

use crate::computed::Computed;
use crate::label_view::LabelView;

/// Labels with the pod that a series is about: an exporter of the cluster's state has its own pod in `pod` if the
/// scrape configuration does not honour the exporter's labels.
const ABOUT_POD: [&str; 6] = ["exported_pod", "k8s.pod.name", "k8s_pod_name", "pod", "pod_name", "kubernetes_pod_name"];
/// Labels with the server that an exporter watches.
const WATCHED: [&str; 4] = ["server", "addr", "target", "redis_instance"];
/// Labels with a probed address.
const TARGETS: [&str; 3] = ["target", "instance", "url"];

/// The labels of one series and the rules.
pub(crate) struct Context<'a> {
    pub(crate) view: LabelView<'a>,
    pub(crate) rules: &'a EntityRules,
}

impl<'a> Context<'a> {
    pub(crate) fn new(labels: &'a Labels, rules: &'a EntityRules) -> Self {
        Self { view: LabelView::new(labels), rules }
    }

    /// Returns a label by its spelling with dots or with underscores.
    pub(crate) fn label(&self, dotted: &str, plain: &str) -> Option<&'a str> {
        self.view.get(dotted).or_else(|| if dotted == plain { None } else { self.view.get(plain) })
    }

    pub(crate) fn computed(&self, computed: Computed) -> Option<&'a str> {
        let text = match computed {
            Computed::Own => self.rules.service_of(&self.view),
            Computed::Workload => workload_of_pod(self.about_pod()?),
            Computed::Pod => self.about_pod()?,
            Computed::Node => self.rules.node_of(&self.view).or_else(|| self.local_host())?,
            Computed::Host => self.local_host()?,
            Computed::Instance => self.view.get("instance")?,
            Computed::Watched => self.watched()?.0,
            Computed::Job => self.job()?,
            Computed::Target => without_scheme(self.view.value(&TARGETS)?),
            Computed::Address => authority_of(self.view.value(&TARGETS)?),
            Computed::Prefix => self.view.get("__name__")?.split(['_', '.', ':']).next()?,
        };
        Some(text).filter(|text| !text.is_empty())
    }

    /// Returns the host of the scrape target; `None` for a loopback address.
    pub(crate) fn host(&self) -> Option<&'a str> {
        self.view.get("instance").map(host_of).filter(|host| !is_loopback(host))
    }

    /// Returns the host of the scrape target, also if it is the scraper's own: a name for lack of a better one.
    fn local_host(&self) -> Option<&'a str> {
        self.view.get("instance").map(host_of).filter(|host| !host.is_empty())
    }

    /// Returns the scrape job, unless it is generic.
    pub(crate) fn job(&self) -> Option<&'a str> {
        self.view.get("job").filter(|job| !self.rules.is_generic_job(job) && !job.contains('/'))
    }

    pub(crate) fn about_pod(&self) -> Option<&'a str> {
        self.view.value(&ABOUT_POD)
    }

    /// Returns what an exporter watches, and whether that is the host of an address. An exporter beside its server in
    /// a pod watches the pod; one of its own watches what its server label says, else its host.
    pub(crate) fn watched(&self) -> Option<(&'a str, bool)> {
        let server = self.view.value(&WATCHED).map(host_of).filter(|host| !is_loopback(host));
        if let Some(server) = server {
            return Some((server, true));
        }
        if let Some(pod) = self.about_pod() {
            return Some((without_exporter(workload_of_pod(pod)), false));
        }
        let host = || self.host().map(|host| (host, true));
        let service = self.view.value(&["service.name", "service_name"]).map(|name| (without_exporter(name), false));
        let job = || self.job().map(|job| (job, false));
        service.or_else(host).or_else(job).or_else(|| Some((self.view.get("instance")?, true)))
    }

    /// Returns an entity of a name or host; a DNS name of Kubernetes says service and namespace. Machines, addresses
    /// and what is on them are in no namespace.
    pub(crate) fn of_host(&self, kind: EntityKind, host: &str, is_address: bool) -> Entity {
        if let Some(dns) = service_dns(host) {
            let mut entity = self.rules.qualified(&self.view, kind, dns.service);
            dns.namespace.clone_into(&mut entity.namespace);
            return entity;
        }
        let mut entity = self.rules.qualified(&self.view, kind, host);
        if is_address || !is_namespaced(kind) {
            entity.namespace.clear();
        }
        entity
    }
}

const fn is_namespaced(kind: EntityKind) -> bool {
    !matches!(
        kind,
        EntityKind::Node
            | EntityKind::Filesystem
            | EntityKind::Endpoint
            | EntityKind::Certificate
            | EntityKind::External
            | EntityKind::Validator
    )
}

fn without_scheme(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// `postgres-exporter` and `prometheus-postgres-exporter` watch `postgres`.
pub(crate) fn without_exporter(name: &str) -> &str {
    let stem = name.strip_suffix("-exporter").or_else(|| name.strip_suffix("_exporter")).unwrap_or(name);
    stem.strip_prefix("prometheus-").filter(|_| stem != name).unwrap_or(stem)
}
