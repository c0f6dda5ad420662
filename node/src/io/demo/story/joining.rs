//! The first act: two sites join a cloud.

use anyhow::{Result, bail};
use serde_json::Value;

use super::{SOON, Story, indent, since};
use crate::io::demo::stage::{CLOUD, VM_SUBNETS};

impl Story {
    pub(super) fn form_cluster(&mut self) -> Result<()> {
        if let Some(stage) = &self.stage {
            self.narrator.say(format_args!(
                "a small internet: cloud {CLOUD}; site a behind NAT {}, site b behind NAT {}; 3 Mbit/s, 60 ms",
                stage.sites[0].public, stage.sites[1].public
            ));
        }
        self.cloud.configure(&self.cloud_config())?;
        self.narrator.typed("cloud");
        self.cloud.start()?;
        self.show_page()?;
        let address = self.stage.as_ref().map_or("127.0.0.1:21001".to_owned(), |_| CLOUD.to_string());
        for index in 0..self.edges.len() {
            self.join(index, &address)?;
        }
        let names = ["a", "b"];
        let both = |story: &mut Self| {
            let listed = story.cloud.ask(&["get", "nodes", "-o", "json"])?;
            let listed: Vec<Value> = serde_json::from_str(&listed)?;
            Ok(names
                .iter()
                .all(|n| listed.iter().any(|node| node["name"] == *n && node["connected"] == true)))
        };
        let took = self.wait_for(SOON, both)?;
        self.check(took.is_some(), "both sites joined by token and connected", since(took));
        let listed = self.cloud.tell(&self.narrator, &["get", "nodes"])?;
        self.narrator.print(indent(&listed));
        Ok(())
    }

    fn cloud_config(&self) -> String {
        let mqtt = self.cloud.mqtt;
        match &self.stage {
            Some(_) => format!(
                "cloud: {{cluster: water, vm-subnets: [{}]}}\nmqtt: {{listen: '{mqtt}'}}\n",
                VM_SUBNETS.map(|subnet| format!("'{subnet}'")).join(", ")
            ),
            None => format!(
                "cloud: {{cluster: water, listen: '127.0.0.1:21001'}}\nmqtt: {{listen: '{mqtt}'}}\n\
                 overlay: {{enabled: false}}\n"
            ),
        }
    }

    fn join(&mut self, index: usize, address: &str) -> Result<()> {
        let site = format!("site-{}", self.edges[index].name);
        let mut create = vec!["token".to_owned(), "create".to_owned(), "--site".to_owned(), site];
        if let Some(stage) = &self.stage {
            create.extend(stage.sites[index].lans().into_iter().flat_map(|lan| ["--lan".to_owned(), lan]));
        }
        let create: Vec<&str> = create.iter().map(String::as_str).collect();
        let token = self.cloud.tell(&self.narrator, &create)?;
        let edge = &mut self.edges[index];
        let packets = if self.stage.is_some() { "" } else { "overlay: {enabled: false}\n" };
        edge.configure(&format!("mqtt: {{listen: '{}'}}\n{packets}", edge.mqtt))?;
        let name = edge.name.clone();
        self.narrator.typed(format_args!("join {address} --token {}… --name {name}", &token[..12]));
        edge.ask(&["join", address, "--token", &token, "--name", &name])?;
        self.narrator.typed("edge");
        edge.start()?;
        let again = edge.ask(&["join", address, "--token", &token, "--name", "impostor"]);
        if again.is_ok() {
            bail!("a used token let a second node in");
        }
        Ok(())
    }
}
