//! The messages of DMI v1beta1, as `api.proto` beside this file has them: written by hand, so that no build needs
//! `protoc`. What a mapper answers is never read, so those messages are not here.
//!
//! The push methods are read from a manifest straight into their messages: there they are the same, field by field.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Deserializer};

use bus::twin::Json;

use super::any::to_any;

/// What mappers call at the edge.
pub const MANAGER: &str = "v1beta1.DeviceManagerService";
/// What the edge calls at a mapper.
pub const MAPPER: &str = "v1beta1.DeviceMapperService";

#[derive(Clone, PartialEq, Message)]
pub struct MapperRegisterRequest {
    #[prost(bool, tag = "1")]
    pub with_data: bool,
    #[prost(message, optional, tag = "2")]
    pub mapper: Option<MapperInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub struct MapperRegisterResponse {
    #[prost(message, repeated, tag = "1")]
    pub models: Vec<DeviceModel>,
    #[prost(message, repeated, tag = "2")]
    pub devices: Vec<Device>,
}

#[derive(Clone, PartialEq, Message)]
pub struct MapperInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub version: String,
    #[prost(string, tag = "3")]
    pub api_version: String,
    #[prost(string, tag = "4")]
    pub protocol: String,
    /// Path of the mapper's own socket.
    #[prost(bytes = "bytes", tag = "5")]
    pub address: Bytes,
    #[prost(string, tag = "6")]
    pub state: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct DeviceModel {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub spec: Option<DeviceModelSpec>,
    #[prost(string, tag = "3")]
    pub namespace: String,
}

/// KubeEdge has commands too, which no mapper of it reads.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceModelSpec {
    #[prost(message, repeated, tag = "1")]
    pub properties: Vec<ModelProperty>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ModelProperty {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub description: String,
    #[prost(string, tag = "3")]
    pub data_type: String,
    #[prost(string, tag = "4")]
    pub access_mode: String,
    #[prost(string, tag = "5")]
    pub minimum: String,
    #[prost(string, tag = "6")]
    pub maximum: String,
    #[prost(string, tag = "7")]
    pub unit: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Device {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub spec: Option<DeviceSpec>,
    #[prost(message, optional, tag = "3")]
    pub status: Option<DeviceStatus>,
    #[prost(string, tag = "4")]
    pub namespace: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct DeviceSpec {
    #[prost(string, tag = "1")]
    pub device_model_reference: String,
    #[prost(message, optional, tag = "2")]
    pub protocol: Option<ProtocolConfig>,
    #[prost(message, repeated, tag = "3")]
    pub properties: Vec<DeviceProperty>,
    #[prost(message, repeated, tag = "4")]
    pub methods: Vec<DeviceMethod>,
}

#[derive(Clone, PartialEq, Message)]
pub struct DeviceMethod {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub description: String,
    #[prost(string, repeated, tag = "3")]
    pub property_names: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct DeviceProperty {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub desired: Option<TwinProperty>,
    #[prost(message, optional, tag = "3")]
    pub visitors: Option<ProtocolConfig>,
    /// Milliseconds, as the next.
    #[prost(int64, tag = "4")]
    pub report_cycle: i64,
    #[prost(int64, tag = "5")]
    pub collect_cycle: i64,
    #[prost(bool, tag = "6")]
    pub report_to_cloud: bool,
    #[prost(message, optional, tag = "7")]
    pub push_method: Option<PushMethod>,
}

/// Also `VisitorConfig`, which has the same fields.
#[derive(Clone, PartialEq, Message)]
pub struct ProtocolConfig {
    #[prost(string, tag = "1")]
    pub protocol_name: String,
    #[prost(message, optional, tag = "2")]
    pub config_data: Option<CustomizedValue>,
}

/// Also `AnomalyDetection`, which has the same field.
#[derive(Clone, PartialEq, Message)]
pub struct CustomizedValue {
    #[prost(btree_map = "string, message", tag = "1")]
    pub data: BTreeMap<String, Any>,
}

impl From<&Json> for CustomizedValue {
    fn from(json: &Json) -> Self {
        let Json::Object(fields) = json else { return Self::default() };
        let data = fields.iter().filter_map(|(name, value)| Some((name.clone(), to_any(value)?)));
        Self { data: data.collect() }
    }
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PushMethod {
    #[prost(message, optional, tag = "1")]
    pub http: Option<PushMethodHttp>,
    #[prost(message, optional, tag = "2")]
    pub mqtt: Option<PushMethodMqtt>,
    #[prost(message, optional, tag = "3")]
    pub db_method: Option<DbMethod>,
    #[prost(message, optional, tag = "4")]
    pub otel: Option<PushMethodOtel>,
    #[prost(message, optional, tag = "5")]
    #[serde(deserialize_with = "free_map")]
    pub anomaly_detection: Option<CustomizedValue>,
}

fn free_map<'de, D: Deserializer<'de>>(d: D) -> Result<Option<CustomizedValue>, D::Error> {
    Ok(Option::<Json>::deserialize(d)?.as_ref().map(CustomizedValue::from))
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PushMethodHttp {
    #[prost(string, tag = "1")]
    #[serde(rename = "hostName")]
    pub hostname: String,
    #[prost(int64, tag = "2")]
    pub port: i64,
    #[prost(string, tag = "3")]
    pub request_path: String,
    #[prost(int64, tag = "4")]
    pub timeout: i64,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct PushMethodMqtt {
    #[prost(string, tag = "1")]
    pub address: String,
    #[prost(string, tag = "2")]
    pub topic: String,
    #[prost(int32, tag = "3")]
    pub qos: i32,
    #[prost(bool, tag = "4")]
    pub retained: bool,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct PushMethodOtel {
    #[prost(string, tag = "1")]
    #[serde(rename = "endpointURL")]
    pub endpoint: String,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct DbMethod {
    #[prost(message, optional, tag = "1")]
    pub influxdb2: Option<DbMethodInfluxdb2>,
    #[prost(message, optional, tag = "2")]
    pub redis: Option<DbMethodRedis>,
    #[prost(message, optional, tag = "3")]
    #[serde(rename = "TDEngine")]
    pub tdengine: Option<DbMethodTdEngine>,
    #[prost(message, optional, tag = "4")]
    pub mysql: Option<DbMethodMySql>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct DbMethodInfluxdb2 {
    #[prost(message, optional, tag = "1")]
    #[serde(rename = "influxdb2ClientConfig")]
    pub client: Option<Influxdb2ClientConfig>,
    #[prost(message, optional, tag = "2")]
    #[serde(rename = "influxdb2DataConfig")]
    pub data: Option<Influxdb2DataConfig>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Influxdb2DataConfig {
    #[prost(string, tag = "1")]
    pub measurement: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub tag: BTreeMap<String, String>,
    #[prost(string, tag = "3")]
    pub field_key: String,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct Influxdb2ClientConfig {
    #[prost(string, tag = "1")]
    pub url: String,
    #[prost(string, tag = "2")]
    pub org: String,
    #[prost(string, tag = "3")]
    pub bucket: String,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct DbMethodRedis {
    #[prost(message, optional, tag = "1")]
    #[serde(rename = "redisClientConfig")]
    pub client: Option<RedisClientConfig>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RedisClientConfig {
    #[prost(string, tag = "1")]
    pub addr: String,
    #[prost(int32, tag = "2")]
    pub db: i32,
    #[prost(int32, tag = "3")]
    pub poolsize: i32,
    #[prost(int32, tag = "4")]
    pub min_idle_conns: i32,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct DbMethodTdEngine {
    #[prost(message, optional, tag = "1")]
    #[serde(rename = "TDEngineClientConfig")]
    pub client: Option<TdEngineClientConfig>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct TdEngineClientConfig {
    #[prost(string, tag = "1")]
    pub addr: String,
    #[prost(string, tag = "2")]
    #[serde(rename = "dbName")]
    pub dbname: String,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct DbMethodMySql {
    #[prost(message, optional, tag = "1")]
    #[serde(rename = "mysqlClientConfig")]
    pub client: Option<MySqlClientConfig>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MySqlClientConfig {
    #[prost(string, tag = "1")]
    pub addr: String,
    #[prost(string, tag = "2")]
    pub database: String,
    #[prost(string, tag = "3")]
    pub user_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ReportDeviceStatusRequest {
    #[prost(string, tag = "1")]
    pub device_name: String,
    #[prost(message, optional, tag = "2")]
    pub reported_device: Option<DeviceStatus>,
    #[prost(string, tag = "3")]
    pub device_namespace: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ReportDeviceStatesRequest {
    #[prost(string, tag = "1")]
    pub device_name: String,
    #[prost(string, tag = "2")]
    pub device_namespace: String,
    #[prost(string, tag = "3")]
    pub state: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct DeviceStatus {
    #[prost(message, repeated, tag = "1")]
    pub twins: Vec<Twin>,
    #[prost(bool, tag = "2")]
    pub report_to_cloud: bool,
    #[prost(int64, tag = "3")]
    pub report_cycle: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Twin {
    #[prost(string, tag = "1")]
    pub property_name: String,
    /// What a mapper believes is wished. Not read: a report is no wish.
    #[prost(message, optional, tag = "2")]
    pub observed_desired: Option<TwinProperty>,
    #[prost(message, optional, tag = "3")]
    pub reported: Option<TwinProperty>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TwinProperty {
    #[prost(string, tag = "1")]
    pub value: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub metadata: BTreeMap<String, String>,
}

/// `RegisterDeviceRequest` and `UpdateDeviceRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceRequest {
    #[prost(message, optional, tag = "1")]
    pub device: Option<Device>,
}

/// `CreateDeviceModelRequest` and `UpdateDeviceModelRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ModelRequest {
    #[prost(message, optional, tag = "1")]
    pub model: Option<DeviceModel>,
}

/// `RemoveDeviceRequest` and `RemoveDeviceModelRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct RemoveRequest {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
}
