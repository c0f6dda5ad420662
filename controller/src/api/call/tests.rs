use super::*;

fn parse(method: Method, path: &str, query: &str) -> Result<Call, Refusal> {
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let request = Request {
        method,
        path,
        query,
        accept,
        content_type: "application/merge-patch+json",
        user_agent: "kubectl/v1.32",
    };
    Call::parse(&request)
}

const DEVICES: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/plant/devices";

#[test]
fn paths_and_methods_say_what_is_meant() {
    let Call::Get { kind, id, form } = parse(Method::Get, &format!("{DEVICES}/valve"), "").unwrap() else {
        panic!()
    };
    assert_eq!((kind, id.as_str(), form), (Kind::Device, "plant/valve", Form::Table(Include::Metadata)));
    let watch = "watch=true&resourceVersion=7&allowWatchBookmarks=true&timeoutSeconds=5&labelSelector=a%3Db";
    let Call::Watch { of, watch, .. } = parse(Method::Get, DEVICES, watch).unwrap() else { panic!() };
    assert_eq!(
        (of.version, watch.bookmarks, watch.timeout),
        (Some(Revision(7)), true, Duration::from_secs(5))
    );
    let Call::Write(write) =
        parse(Method::Patch, &format!("{DEVICES}/valve"), "dryRun=All&force=true").unwrap()
    else {
        panic!()
    };
    assert_eq!((write.patch, write.verb), (Some(PatchType::Merge), Verb::Patch));
    assert_eq!(write.options.manager, "kubectl");
    assert!(write.options.dry_run && write.options.force);
    let Call::Steer(steer) = parse(Method::Patch, &format!("{DEVICES}/valve/desired"), "").unwrap() else {
        panic!()
    };
    assert_eq!(
        (steer.part, steer.id.as_str(), steer.patch),
        (Part::Desired, "plant/valve", Some(PatchType::Merge))
    );
    assert_eq!(
        parse(Method::Get, "/apis/kubebus.io/v1alpha1/sites", "limit=0").map(|call| call.needs()),
        Ok(Some((Verb::List, Kind::Site, "")))
    );
}

#[test]
fn what_makes_no_sense_is_refused_with_kubernetes_words() {
    for (method, path, query, code, reason) in [
        (Method::Get, "/apis/apps/v1/deployments", "", 404, "NotFound"),
        (Method::Get, "/apis/kubebus.io/v1alpha1/namespaces/x/sites", "", 404, "NotFound"),
        (Method::Get, "/apis/devices.kubeedge.io/v1beta1/devices/valve", "", 404, "NotFound"),
        (Method::Get, DEVICES, "continue=nonsense", 400, "BadRequest"),
        (Method::Get, DEVICES, "limit=many", 400, "BadRequest"),
        (Method::Get, DEVICES, "labelSelector=%ff", 400, "BadRequest"),
        (Method::Post, DEVICES, "dryRun=Some", 400, "BadRequest"),
        (Method::Put, DEVICES, "", 405, "MethodNotAllowed"),
        (Method::Patch, &format!("{DEVICES}/valve/status"), "", 405, "MethodNotAllowed"),
        (Method::Get, &format!("{DEVICES}/valve/scale"), "", 404, "NotFound"),
        (Method::Delete, &format!("{DEVICES}/valve/desired"), "", 405, "MethodNotAllowed"),
        (Method::Patch, &format!("{DEVICES}/valve/commands"), "", 405, "MethodNotAllowed"),
        (Method::Get, &format!("{DEVICES}/valve/desired"), "watch=true", 405, "MethodNotAllowed"),
        (Method::Get, "/apis/kubebus.io/v1alpha1/sites/x/desired", "", 404, "NotFound"),
    ] {
        let refused = parse(method, path, query).unwrap_err();
        assert_eq!((refused.code, refused.reason), (code, reason), "{path}?{query}");
    }
}

/// `ListOptions.limit`: "Servers may choose not to support the limit argument and will return all of the available
/// results."
#[test]
fn a_limit_that_clients_set_by_themselves_is_not_kept() {
    let limit = |text: &str| {
        let Call::List { of, .. } = parse(Method::Get, DEVICES, text).unwrap() else { panic!("no list") };
        of.limit
    };
    assert_eq!(
        ["", "limit=0", "limit=1", "limit=499", "limit=500", "limit=18446744073709551615"].map(limit),
        [None, None, Some(1), Some(499), None, None]
    );
}

#[test]
fn a_continue_token_is_read_as_it_is_written() {
    let token = Continue { revision: Revision(12), after: Id::from("plant/valve") };
    assert_eq!(Continue::parse(&token.text()), Ok(token));
}
