//! Orthanc as the archive: its own folder, loopback ports, DIMSE and REST.
//!
//! In: a folder. Out: a running archive that accepts everything; its REST interface. Promise: stopped when dropped; started again
//! on the same folder it still holds what it held.

use crate::process::Running;
use crate::{http, ports, wait};
use anyhow::{Context as _, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// AE title of the archive.
pub const AE_TITLE: &str = "ORTHANC";

/// An archive: its place, and the program while it runs.
#[derive(Debug)]
pub struct Archive {
    folder: PathBuf,
    /// DIMSE port.
    pub dicom_port: u16,
    /// REST and DICOMweb port.
    pub http_port: u16,
    running: Option<Running>,
}

impl Archive {
    /// Chooses ports and writes the configuration into `folder`; nothing runs yet. `box_port` is where our box listens.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn prepare(folder: &Path, box_port: u16) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let (dicom_port, http_port) = (ports::free()?, ports::free()?);
        let config = serde_json::json!({
            "Name": "archive",
            "StorageDirectory": folder.join("storage"),
            "IndexDirectory": folder.join("index"),
            "Plugins": ["/usr/share/orthanc/plugins"],
            "HttpServerEnabled": true,
            "HttpPort": http_port,
            "HttpBindAddresses": ["127.0.0.1"],
            "RemoteAccessAllowed": false,
            "AuthenticationEnabled": false,
            "DicomServerEnabled": true,
            "DicomAet": AE_TITLE,
            "DicomCheckCalledAet": false,
            "DicomPort": dicom_port,
            "DicomAlwaysAllowStore": true,
            "UnknownSopClassAccepted": true,
            "OverwriteInstances": false,
            "DicomModalities": { "fovea": ["FOVEA", "127.0.0.1", box_port] },
            "DicomWeb": { "Enable": true, "Root": "/dicom-web/" },
        });
        let text = serde_json::to_string_pretty(&config).context("write the configuration")?;
        std::fs::write(folder.join("orthanc.json"), text).context("write the configuration")?;
        Ok(Self { folder: folder.to_owned(), dicom_port, http_port, running: None })
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When Orthanc is not installed, or is not up within 30 seconds.
    pub fn start(&mut self) -> anyhow::Result<()> {
        ensure!(Path::new("/usr/sbin/Orthanc").exists(), "Orthanc is not installed: run `scripts/setup-peers.sh`");
        let mut command = Command::new("/usr/sbin/Orthanc");
        // Without it each response waits 40 ms for an acknowledgement, because Orthanc writes it as two packets.
        command.arg(self.folder.join("orthanc.json")).env("TCP_NODELAY", "1");
        let mut running = Running::start("orthanc", &mut command, &self.folder.join("orthanc.log"))?;
        let port = self.http_port;
        wait::until(
            Duration::from_secs(30),
            || "the archive to answer".into(),
            || {
                ensure!(running.ended()?.is_none(), "orthanc ended at once\n{}", running.log_tail());
                Ok(http::ask(port, "GET", "/system", b"").ok().filter(|answer| answer.status == 200))
            },
        )?;
        self.running = Some(running);
        Ok(())
    }

    /// Stops it in good order.
    ///
    /// # Errors
    /// When it does not end within 20 seconds.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        match self.running.take() {
            Some(mut running) => running.terminate(Duration::from_secs(20)).map(drop),
            None => Ok(()),
        }
    }

    /// Kills it, as a power cut would end it.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        match self.running.take() {
            Some(mut running) => running.kill().map(drop),
            None => Ok(()),
        }
    }

    /// Orthanc's own id of an instance, none when it does not hold it.
    ///
    /// # Errors
    /// When the archive does not answer.
    pub fn find(&self, sop_instance_uid: &str) -> anyhow::Result<Option<String>> {
        let answer = http::ask(self.http_port, "POST", "/tools/lookup", sop_instance_uid.as_bytes())?.json()?;
        let rows = answer.as_array().context("a lookup answers a list")?;
        let instance = rows.iter().find(|row| row["Type"] == "Instance");
        Ok(instance.and_then(|row| row["ID"].as_str()).map(str::to_owned))
    }

    /// Number of instances held.
    ///
    /// # Errors
    /// When the archive does not answer.
    pub fn count(&self) -> anyhow::Result<u64> {
        let answer = http::ask(self.http_port, "GET", "/statistics", b"")?.json()?;
        answer["CountInstances"].as_u64().context("statistics count instances")
    }

    /// SOP Instance UIDs held, each as often as it is there.
    ///
    /// # Errors
    /// When the archive does not answer.
    pub fn sop_instance_uids(&self) -> anyhow::Result<Vec<String>> {
        let answer = http::ask(self.http_port, "GET", "/instances?expand", b"")?.json()?;
        let rows = answer.as_array().context("a list of instances")?;
        Ok(rows.iter().filter_map(|row| row["MainDicomTags"]["SOPInstanceUID"].as_str()).map(str::to_owned).collect())
    }

    /// When the archive received an instance, in its own words (`20261123T190102`, in UTC), and in which order.
    ///
    /// # Errors
    /// When it does not hold it.
    pub fn arrival_index(&self, sop_instance_uid: &str) -> anyhow::Result<u64> {
        let answer = http::ask(self.http_port, "GET", "/changes?limit=100000", b"")?.json()?;
        let id =
            self.find(sop_instance_uid)?.with_context(|| format!("the archive does not hold {sop_instance_uid}"))?;
        let rows = answer["Changes"].as_array().context("a list of changes")?;
        let row = rows.iter().find(|row| row["ChangeType"] == "NewInstance" && row["ID"] == id.as_str());
        row.and_then(|row| row["Seq"].as_u64()).context("the archive noted no arrival")
    }

    /// The Part 10 file of an instance.
    ///
    /// # Errors
    /// When the archive does not hold it.
    pub fn download(&self, sop_instance_uid: &str) -> anyhow::Result<Vec<u8>> {
        let id =
            self.find(sop_instance_uid)?.with_context(|| format!("the archive does not hold {sop_instance_uid}"))?;
        let answer = http::ask(self.http_port, "GET", &format!("/instances/{id}/file"), b"")?;
        ensure!(answer.status == 200, "status {} for {sop_instance_uid}", answer.status);
        Ok(answer.body)
    }
}
