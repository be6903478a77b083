# What a person must hear of. The sweep says in one line what it mended and what it could not; a healthy system
# has nothing to mend.

locals {
  sweeps = "resource.type=\"cloud_run_revision\" resource.labels.service_name=\"sweep-leases\" jsonPayload.message=\"sweep-leases had work to do\""

  logged = {
    lease-not-ended = {
      filter   = "${local.sweeps} jsonPayload.failures:\"could not be ended\""
      severity = "CRITICAL"
      for_s    = 0
      says     = "Access of a lease could not be ended: its last token still works. `sublet get lease NAME` says which; disable its data account by hand: gcloud iam service-accounts disable."
    }
    trainer-silent = {
      filter   = "${local.sweeps} jsonPayload.repairs.\"lease ended\">0"
      severity = "WARNING"
      for_s    = 0
      says     = "A trainer fell silent, and the sweep ended its lease. The job's status has the reason that Cloud Run gave."
    }
    sweep-repairs = {
      filter   = local.sweeps
      severity = "WARNING"
      for_s    = 900
      says     = "The sweep has had something to mend for a quarter of an hour. Repairs at a rate are a defect somewhere else: look for what is mended, by kind, in the log of sweep-leases."
    }
    event-quarantined = {
      filter   = "resource.type=\"cloud_run_revision\" severity=ERROR jsonPayload.message:\"event quarantined\""
      severity = "WARNING"
      for_s    = 0
      says     = "Somebody sent an event that is malformed or forged. It was kept and did nothing: `sublet local status` shows such on a laptop, the registry's collection `quarantine` here."
    }
  }

  measured = {
    message-undelivered = {
      filter   = "resource.type=\"pubsub_subscription\" AND metric.type=\"pubsub.googleapis.com/subscription/dead_letter_message_count\""
      aligner  = "ALIGN_SUM"
      above    = 0
      for_s    = 0
      severity = "ERROR"
      says     = "Pub/Sub gave up delivering a message after 50 tries. The sweep reads it from sublet-dead-letters, counts it and does its work."
    }
    message-waiting = {
      filter   = "resource.type=\"pubsub_subscription\" AND metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" AND resource.labels.subscription_id!=\"sublet-dead-letters\""
      aligner  = "ALIGN_MAX"
      above    = 900
      for_s    = 300
      severity = "WARNING"
      says     = "A message has waited for a quarter of an hour: its function fails, or waits for a data account to become free."
    }
    unit-failing = {
      filter   = "resource.type=\"cloud_run_revision\" AND metric.type=\"run.googleapis.com/request_count\" AND metric.labels.response_code_class=\"5xx\""
      aligner  = "ALIGN_SUM"
      above    = 30
      for_s    = 300
      severity = "WARNING"
      says     = "A unit answers 5xx again and again. Deliveries come again by themselves; the log of the unit says why it fails."
    }
  }
}

resource "google_logging_metric" "logged" {
  for_each = local.logged

  project     = var.project
  name        = "sublet/${each.key}"
  description = each.value.says
  filter      = each.value.filter

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
  }
}

resource "google_monitoring_notification_channel" "person" {
  project      = var.project
  display_name = "sublet"
  type         = "email"
  labels       = { email_address = var.alerts_to }

  depends_on = [google_project_service.api]
}

locals {
  alerts = merge(
    {
      for name, log in local.logged : name => {
        filter   = "resource.type=\"cloud_run_revision\" AND metric.type=\"logging.googleapis.com/user/${google_logging_metric.logged[name].name}\""
        aligner  = "ALIGN_SUM"
        above    = 0
        for_s    = log.for_s
        severity = log.severity
        says     = log.says
      }
    },
    local.measured,
  )
}

resource "google_monitoring_alert_policy" "alert" {
  for_each = local.alerts

  project               = var.project
  display_name          = "sublet: ${each.key}"
  combiner              = "OR"
  severity              = each.value.severity
  notification_channels = [google_monitoring_notification_channel.person.id]

  conditions {
    display_name = each.key

    condition_threshold {
      filter          = each.value.filter
      comparison      = "COMPARISON_GT"
      threshold_value = each.value.above
      duration        = "${each.value.for_s}s"

      aggregations {
        alignment_period   = "300s"
        per_series_aligner = each.value.aligner
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = each.value.says
  }
}

# A sweep that is not rung at all says nothing, so its silence is an alert of its own.
resource "google_monitoring_alert_policy" "no_sweep" {
  project               = var.project
  display_name          = "sublet: no-sweep"
  combiner              = "OR"
  severity              = "CRITICAL"
  notification_channels = [google_monitoring_notification_channel.person.id]

  conditions {
    display_name = "no-sweep"

    condition_absent {
      filter   = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"sweep-leases\" AND metric.type=\"run.googleapis.com/request_count\" AND metric.labels.response_code_class=\"2xx\""
      duration = "600s"

      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_SUM"
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "No sweep has succeeded for ten minutes. Leases still end by age; what events miss is not mended until it runs: look at Cloud Scheduler's job sublet-sweep."
  }
}
