use std::fs;
use std::io::ErrorKind;

use router::io::netlink::NetlinkError;
use router::io::tun::TunError;
use router::io::{Netlink, Tun};
use rustix::thread::CapabilitySet;

use crate::namespace::in_own_network;

#[test]
fn a_tun_has_its_name_and_mtu_and_goes_with_its_last_handle() {
    in_own_network("tun::a_tun_has_its_name_and_mtu_and_goes_with_its_last_handle", || {
        let mut netlink = Netlink::open().unwrap();
        let tun = Tun::open("kb0", 1300).unwrap();
        assert_eq!(tun.name(), "kb0");
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv6/conf/kb0/mtu").unwrap().trim(), "1300");

        let clone = tun.try_clone().unwrap();
        drop(tun);
        netlink.link_index("kb0").unwrap();
        drop(clone);
        let gone = netlink.link_index("kb0").unwrap_err();
        assert!(matches!(&gone, NetlinkError::NoInterface(name) if name == "kb0"), "{gone:?}");
    });
}

#[test]
fn a_tun_does_not_block() {
    in_own_network("tun::a_tun_does_not_block", || {
        let tun = Tun::open("kb0", 1280).unwrap();
        assert_eq!(tun.read(&mut [0; 1500]).unwrap_err().kind(), ErrorKind::WouldBlock);
        // The interface is down.
        assert_eq!(tun.write(&[0x45; 20]).unwrap_err().raw_os_error(), Some(libc::EIO));
    });
}

#[test]
fn a_taken_name_is_said_to_be_taken() {
    in_own_network("tun::a_taken_name_is_said_to_be_taken", || {
        let _first = Tun::open("kb0", 1280).unwrap();
        for name in ["kb0", "lo"] {
            let error = Tun::open(name, 1280).unwrap_err();
            assert!(matches!(&error, TunError::NameBusy { name: taken, .. } if taken == name), "{error:?}");
        }
    });
}

#[test]
fn without_the_right_to_it_the_error_says_how_to_get_it() {
    in_own_network("tun::without_the_right_to_it_the_error_says_how_to_get_it", || {
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        rustix::thread::set_capabilities(None, sets).unwrap();
        let error = Tun::open("kb0", 1280).unwrap_err();
        assert!(matches!(error, TunError::MayNotCreate { .. }), "{error:?}");
        let refused = Netlink::open().unwrap().link_up("lo").unwrap_err();
        assert_eq!(refused.to_string(), "cannot bring the interface 'lo' up");
        assert_eq!(refused.refused_with(), Some(libc::EPERM));
    });
}

#[test]
fn a_name_that_no_interface_can_have_is_refused() {
    for name in ["", "a-name-too-long-", "a b", "a/b", "kb%d", "a:b", "ä"] {
        let error = Tun::open(name, 1280).unwrap_err();
        assert!(matches!(error, TunError::Name(_)), "{name}: {error:?}");
    }
}
