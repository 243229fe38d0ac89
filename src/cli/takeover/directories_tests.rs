use ringlog_types::NodeId;

use super::super::findings::Level;
use super::*;

const OWNER: Owner<'_> = Owner { cluster_id: "c", node_id: Some(1) };

const BOTH: Purpose = Purpose { hosts_partitions: true, hosts_metadata: true };

fn properties(cluster_id: &str, node_id: i32, directory_id: u8) -> MetaProperties {
    let directory_id = Some(Uuid([directory_id; 16]));
    MetaProperties { cluster_id: cluster_id.to_owned(), node_id: NodeId(node_id), directory_id }
}

fn directory() -> Directory {
    Directory {
        path: PathBuf::from("/d"),
        purpose: BOTH,
        has_metadata: true,
        properties: Ok(Some(properties("c", 1, 7))),
        is_in_use: Some(false),
        is_clean: true,
        futures: Vec::new(),
        strays: Vec::new(),
        deleted: 0,
        space: Some((50, 100)),
        is_direct: Some(true),
    }
}

/// The worst that is found.
fn worst(directories: &[Directory]) -> Level {
    judge(directories, OWNER).iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}

#[test]
fn a_directory_in_order_is_taken() {
    assert_eq!(worst(&[directory()]), Level::Ok);
    assert_eq!(worst(&[Directory { is_in_use: Some(true), is_clean: false, ..directory() }]), Level::Ok);
    assert_eq!(worst(&[Directory { deleted: 3, ..directory() }]), Level::Ok);
    let without_id = MetaProperties { directory_id: None, ..properties("c", 1, 7) };
    assert_eq!(worst(&[Directory { properties: Ok(Some(without_id)), ..directory() }]), Level::Ok);
}

#[test]
fn a_directory_of_somebody_else_is_not() {
    for other in [Ok(None), Err("bad".to_owned()), Ok(Some(properties("x", 1, 7))), Ok(Some(properties("c", 2, 7)))] {
        assert_eq!(worst(&[Directory { properties: other.clone(), ..directory() }]), Level::Stop, "{other:?}");
    }
    let copy = Directory { path: PathBuf::from("/copy"), ..directory() };
    assert_eq!(worst(&[directory(), copy.clone()]), Level::Stop);
    assert_eq!(worst(&[directory(), Directory { properties: Ok(Some(properties("c", 1, 8))), ..copy }]), Level::Ok);
}

#[test]
fn directories_are_judged_by_their_purpose() {
    let of_controller = Purpose { hosts_partitions: false, ..BOTH };
    assert_eq!(worst(&[Directory { is_clean: false, purpose: of_controller, ..directory() }]), Level::Ok);
    let without_metadata = Purpose { hosts_metadata: false, ..BOTH };
    assert_eq!(worst(&[Directory { purpose: without_metadata, ..directory() }]), Level::Stop);
    assert_eq!(worst(&[Directory { purpose: without_metadata, has_metadata: false, ..directory() }]), Level::Ok);
}

#[test]
fn what_costs_time_or_space_is_warned_of() {
    assert_eq!(worst(&[Directory { is_clean: false, ..directory() }]), Level::Warn);
    assert_eq!(worst(&[Directory { is_clean: false, is_in_use: None, ..directory() }]), Level::Warn);
    assert_eq!(worst(&[Directory { strays: vec!["t-0".to_owned()], ..directory() }]), Level::Warn);
    assert_eq!(worst(&[Directory { space: Some((9, 100)), ..directory() }]), Level::Warn);
    assert_eq!(worst(&[Directory { is_direct: Some(false), ..directory() }]), Level::Warn);
}

#[test]
fn a_move_between_directories_goes_on() {
    assert_eq!(worst(&[Directory { futures: vec!["t-0".to_owned()], ..directory() }]), Level::Ok);
}

#[test]
fn folders_are_told_apart_by_their_names() -> io::Result<()> {
    let folder = std::env::temp_dir().join(format!("ringlog-takeover-{}", std::process::id()));
    let id = "711669e5f1b04cb5b57675f03a1eb1c1";
    for name in ["t-0", "t-1.ID-future", "t-2.ID-stray", "t-3.ID-delete", "lost+found"] {
        fs::create_dir_all(folder.join(name.replace("ID", id)))?;
    }
    fs::write(folder.join(META_PROPERTIES_FILE), properties("c", 1, 7).format(ringlog_types::TimestampMs(0)))?;
    let found = Directory::look(&folder, BOTH)?;
    fs::remove_dir_all(&folder)?;
    assert_eq!((found.futures.len(), found.strays.len(), found.deleted), (1, 1, 1));
    assert_eq!(found.properties, Ok(Some(properties("c", 1, 7))));
    assert_eq!((found.is_in_use, found.is_clean), (Some(false), false));
    Ok(())
}
