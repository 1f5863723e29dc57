use proptest::strategy::Strategy;
use wardroom_domain::{EntityKind, Labels};

use super::*;
use crate::Catalog;

fn service(name: &str) -> Entity {
    Entity::service(name)
}

fn relation(from: &Entity, kind: RelationKind, to: &Entity) -> Relation {
    Relation { from: from.clone(), kind, to: to.clone() }
}

fn observe_series(graph: &EntityGraph, pairs: &[(&str, &str)]) -> Entity {
    let meaning = Catalog::builtin().meaning(&Labels::of(pairs), None);
    let entity = meaning.entity.unwrap();
    graph.observe(&entity, &meaning.aliases, &meaning.relations, 0);
    entity
}

#[test]
fn a_database_seen_by_its_clients_and_by_its_exporter_is_one() {
    let graph = EntityGraph::default();
    let inside = observe_series(
        &graph,
        &[
            ("__name__", "pg_database_size_bytes"),
            ("job", "postgres"),
            ("instance", "db-7.example.net:9187"),
            ("datname", "billing"),
            ("server", "127.0.0.1:5432"),
        ],
    );
    assert_eq!(inside, Entity::named(EntityKind::Database, "db-7.example.net"));
    for address in ["db-7.example.net", "127.0.0.1"] {
        let client = Labels::of(&[
            ("__name__", "db_client_operation_duration_seconds_count"),
            ("service_name", "invoices"),
            ("server_address", address),
            ("server_port", "5432"),
            ("db_system_name", "postgresql"),
            ("db_namespace", "billing"),
        ]);
        let meaning = Catalog::builtin().meaning(&client, None);
        graph.observe(&meaning.entity.clone().unwrap(), &meaning.aliases, &meaning.relations, 0);
        let peer = meaning.uses[0].peer.clone().unwrap();
        assert_eq!(graph.canonical(&peer), inside, "{address}");
        assert_eq!(graph.path(&service("invoices"), &inside), Some(1));
        assert_eq!(graph.path(&inside, &service("invoices")), None);
    }
}

#[test]
fn a_pool_names_the_database_of_an_exporter() {
    let graph = EntityGraph::default();
    let pool =
        [("__name__", "go_sql_in_use_connections"), ("job", "member"), ("instance", "a:1"), ("db_name", "members")];
    let member = observe_series(&graph, &pool);
    let inside = observe_series(
        &graph,
        &[
            ("__name__", "pg_database_size_bytes"),
            ("job", "postgres"),
            ("instance", "db-1:9187"),
            ("datname", "members"),
        ],
    );
    assert_eq!(graph.path(&member, &inside), Some(1));
    assert_eq!(graph.relations_from(&member), [(RelationKind::Uses, inside)]);
}

#[test]
fn an_address_that_two_services_had_makes_them_not_one() {
    let graph = EntityGraph::default();
    for name in ["a", "b"] {
        graph.observe(&service(name), &["10.0.0.1:80".into(), "10.0.0.1".into()], &[], 0);
    }
    assert!(!graph.is_same(&service("a"), &service("b")));
    let address = Entity::named(EntityKind::External, "10.0.0.1");
    assert_eq!(graph.canonical(&address), address, "it could be either");
}

#[test]
fn a_loopback_address_is_never_shared() {
    let graph = EntityGraph::default();
    for name in ["a", "b"] {
        graph.observe(&service(name), &["127.0.0.1:8080".into(), "localhost".into()], &[], 0);
    }
    assert_eq!(graph.canonical(&service("a")), service("a"));
    assert!(!graph.is_same(&service("a"), &service("b")));
    let peer = Entity::named(EntityKind::External, "127.0.0.1");
    assert_eq!(graph.canonical(&peer), peer);
}

#[test]
fn equal_names_of_two_environments_stay_two() {
    let graph = EntityGraph::default();
    let of = |environment: &str| Entity { environment: environment.into(), ..service("cart") };
    graph.observe(&of("prod"), &[], &[], 0);
    graph.observe(&service("cart"), &[], &[], 0);
    assert_eq!(graph.canonical(&service("cart")), of("prod"), "only one is known");
    graph.observe(&of("staging"), &[], &[], 0);
    assert!(!graph.is_same(&of("prod"), &of("staging")));
    assert_eq!(graph.canonical(&service("cart")), service("cart"), "it could be either");
    assert_eq!(graph.canonical(&of("staging")), of("staging"));
}

#[test]
fn an_entity_of_one_environment_does_not_join_two_clusters() {
    let graph = EntityGraph::default();
    let of = |cluster: &str, environment: &str| Entity {
        cluster: cluster.into(),
        environment: environment.into(),
        ..service("cart")
    };
    for entity in [of("a", ""), of("b", ""), of("", "prod")] {
        graph.observe(&entity, &[], &[], 0);
    }
    assert!(!graph.is_same(&of("a", ""), &of("b", "")));
}

#[test]
fn a_pod_joins_the_workload_and_the_service_of_its_name() {
    let graph = EntityGraph::default();
    let pod = "checkoutservice-6d7f8b556-2cwmz".to_owned();
    let checkout = Entity { namespace: "shop".into(), environment: "prod".into(), ..service("checkout") };
    let workload = Entity { namespace: "shop".into(), ..Entity::named(EntityKind::Workload, "checkoutservice") };
    graph.observe(&checkout, std::slice::from_ref(&pod), &[], 0);
    graph.observe(&workload, &[pod, "10.1.2.3:8080".into(), "10.1.2.3".into()], &[], 0);
    assert_eq!(graph.canonical(&workload), checkout);
    let address = Entity::named(EntityKind::External, "10.1.2.3");
    assert_eq!(graph.canonical(&address), checkout, "two steps");
    assert_eq!(graph.members(&checkout).len(), 2);
}

#[test]
fn two_services_of_one_host_stay_two() {
    let graph = EntityGraph::default();
    let node = Entity::named(EntityKind::Node, "vm-1");
    graph.observe(&service("a"), &["vm-1:8080".into(), "vm-1".into()], &[], 0);
    graph.observe(&service("b"), &["vm-1:8081".into(), "vm-1".into()], &[], 0);
    graph.observe(&node, &[], &[], 0);
    assert!(!graph.is_same(&service("a"), &service("b")));
    assert_eq!(graph.canonical(&node), node);
    assert_eq!(graph.path(&service("a"), &node), Some(1), "it runs there");
    assert_eq!(graph.path(&service("a"), &service("b")), None);
    assert!(graph.connected(&service("a"), &service("b")), "both run on the machine");
    let external = Entity::named(EntityKind::External, "vm-1");
    assert_eq!(graph.canonical(&external), external, "either may be meant");
}

#[test]
fn declared_names_are_one() {
    let declared = vec![vec!["ledger".to_owned(), "10.9.9.9".to_owned()]];
    let graph = EntityGraph::new(GraphLimits::default(), &declared);
    let database = Entity::named(EntityKind::Database, "10.9.9.9");
    graph.observe(&service("ledger"), &[], &[], 0);
    graph.observe(&database, &[], &[], 0);
    assert!(graph.is_same(&service("ledger"), &database));
}

#[test]
fn a_file_systems_fault_shows_at_what_runs_on_its_machine_and_not_at_other_file_systems() {
    let graph = EntityGraph::default();
    let node = Entity::named(EntityKind::Node, "vm-1");
    let disks = ["/", "/data"].map(|path| Entity::named(EntityKind::Filesystem, format!("vm-1:{path}")));
    for disk in &disks {
        graph.observe(disk, &[], &[relation(disk, RelationKind::PartOf, &node)], 0);
    }
    graph.observe(&service("a"), &[], &[relation(&service("a"), RelationKind::RunsOn, &node)], 0);
    assert_eq!(graph.path(&service("a"), &disks[0]), Some(2));
    assert_eq!(graph.path(&disks[0], &disks[1]), None);
}

#[test]
fn a_long_chain_is_followed() {
    let graph = EntityGraph::default();
    let link = |index: usize| service(&format!("s{index}"));
    for index in 0..10_000 {
        graph.observe(&link(index), &[], &[relation(&link(index), RelationKind::Calls, &link(index + 1))], 0);
    }
    assert_eq!(graph.path(&link(0), &link(10_000)), Some(10_000));
    assert_eq!(graph.path(&link(10_000), &link(0)), None);
}

#[test]
fn what_comes_and_goes_takes_bounded_memory() {
    let limits = GraphLimits { max_entities: 1000, max_relations: 5000, max_age_ms: 60_000 };
    let graph = EntityGraph::new(limits, &[]);
    let hub = service("hub");
    for index in 0..100_000_i64 {
        let entity = Entity { namespace: format!("n{}", index % 7), ..service(&format!("s{index}")) };
        let aliases = [format!("10.0.{}.{}", index / 250 % 250, index % 250), format!("s{index}-0")];
        graph.observe(&entity, &aliases, &[relation(&entity, RelationKind::Calls, &hub)], index);
        graph.touch(&hub, index);
        let (entities, relations) = graph.len();
        assert!(entities <= 1001 && relations <= 5000, "{entities} {relations}");
    }
    assert_eq!(graph.path(&service("s99999"), &hub), Some(1), "the newest are known");
    assert_eq!(graph.path(&service("s1"), &hub), None);
    graph.evict(100_000 + 60_001);
    assert_eq!(graph.len(), (0, 0));
    assert!(graph.read().is_clean());
}

#[test]
fn a_graph_is_kept_and_read_back() {
    let graph = EntityGraph::default();
    let node = Entity::named(EntityKind::Node, "vm-1");
    graph.observe(&service("a"), &["vm-1:80".into()], &[relation(&service("a"), RelationKind::RunsOn, &node)], 5);
    graph.observe(&service("b"), &[], &[relation(&service("b"), RelationKind::Calls, &service("a"))], 6);
    let state = graph.state();
    let read = EntityGraph::from_state(GraphLimits::default(), &[], &state);
    assert_eq!(read.state(), state);
    assert_eq!(read.path(&service("b"), &node), Some(2));
}

#[test]
fn the_version_changes_only_when_something_is_new() {
    let graph = EntityGraph::default();
    let relations = [relation(&service("a"), RelationKind::Calls, &service("b"))];
    graph.observe(&service("a"), &["x".into()], &relations, 1);
    let version = graph.version();
    graph.observe(&service("a"), &["x".into()], &relations, 2);
    graph.touch(&service("a"), 3);
    assert_eq!(graph.version(), version);
    graph.observe(&service("a"), &["y".into()], &[], 4);
    assert_ne!(graph.version(), version);
}

proptest::proptest! {
    #[test]
    fn any_order_of_observations_gives_the_same_names(order in proptest::sample::subsequence((0..6).collect::<Vec<usize>>(), 6)
        .prop_shuffle())
    {
        let namespaced = |kind, name: &str| Entity { namespace: "shop".into(), ..Entity::named(kind, name) };
        let observations = [
            (service("cart"), vec![]),
            (namespaced(EntityKind::Workload, "cart"), vec!["cart-6d7f8b556-2cwmz".to_owned(), "10.0.0.1".to_owned()]),
            (namespaced(EntityKind::Service, "cart"), vec!["cart-6d7f8b556-2cwmz".to_owned()]),
            (Entity::named(EntityKind::External, "10.0.0.1"), vec![]),
            (namespaced(EntityKind::Cache, "redis"), vec!["redis-0".to_owned()]),
            (namespaced(EntityKind::Workload, "redis"), vec!["redis-0".to_owned()]),
        ];
        let graph = EntityGraph::default();
        for index in order {
            let (entity, aliases) = &observations[index];
            graph.observe(entity, aliases, &[], 0);
        }
        for (index, (entity, _)) in observations.iter().enumerate() {
            let expected = if index < 4 { &observations[2].0 } else { &observations[4].0 };
            proptest::prop_assert_eq!(&graph.canonical(entity), expected);
        }
    }
}
