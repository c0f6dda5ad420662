//! Links between shards over real UDP on the loopback.
#![cfg(feature = "io")]

mod common;

use bus::Class;
use common::{Ca, Node, connect, frame};
use router::io::shard::Lane;

#[test]
fn frames_of_every_class_arrive_in_both_directions() {
    let ca = Ca::new();
    let (mut cloud, mut edge) = (Node::cloud(ca.issue("c/cloud/hub")), Node::edge(ca.issue("c/edge/a")));
    let (up, down) = connect(&mut edge, &mut cloud, Lane::Bus);
    for class in Class::ALL {
        edge.send(up, class, frame(format!("up {class:?}")));
        assert_eq!(cloud.next_frame(), frame(format!("up {class:?}")));
        cloud.send(down, class, frame(format!("down {class:?}")));
        assert_eq!(edge.next_frame(), frame(format!("down {class:?}")));
    }
}
