use std::fs::{self, File};
use std::os::fd::AsFd;

use router::io::netlink::NetlinkError;
use router::io::tun::TunError;
use router::io::{Netlink, Tun};

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
        let error = tun.read(&mut [0; 1500]).unwrap_err();
        // Down, it says EIO on a write, and on a read that there is nothing.
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
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
fn a_tun_is_taken_over_by_its_descriptor() {
    in_own_network("tun::a_tun_is_taken_over_by_its_descriptor", || {
        let first = Tun::open("kb7", 1280).unwrap();
        let second = Tun::from_fd(first.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(second.name(), "kb7");
        let other = Tun::from_fd(File::open("/dev/null").unwrap().into()).unwrap_err();
        assert!(matches!(other, TunError::NotATun(_)), "{other:?}");
    });
}

#[test]
fn a_name_that_no_interface_can_have_is_refused() {
    for name in ["", "a-name-too-long-", "a b", "a/b", "kb%d", "a:b", "ä"] {
        let error = Tun::open(name, 1280).unwrap_err();
        assert!(matches!(error, TunError::Name(_)), "{name}: {error:?}");
    }
}
