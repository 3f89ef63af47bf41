// Generated from conformance/error_rules.json. DO NOT EDIT.

export const errorRules = {
  "classes": [
    {
      "class": "RATE_LIMIT",
      "action": "RETRY",
      "breaker": "NONE"
    },
    {
      "class": "QUOTA",
      "action": "NEXT_HOP",
      "breaker": "CREDENTIAL"
    },
    {
      "class": "AUTH",
      "action": "NEXT_HOP",
      "breaker": "CREDENTIAL"
    },
    {
      "class": "PERMISSION",
      "action": "NEXT_HOP",
      "breaker": "CREDENTIAL_AND_MODEL"
    },
    {
      "class": "MODEL_NOT_FOUND",
      "action": "NEXT_HOP",
      "breaker": "MODEL"
    },
    {
      "class": "OVERLOADED",
      "action": "RETRY",
      "breaker": "REACHABILITY"
    },
    {
      "class": "SERVER",
      "action": "RETRY",
      "breaker": "REACHABILITY"
    },
    {
      "class": "NETWORK",
      "action": "RETRY",
      "breaker": "REACHABILITY"
    },
    {
      "class": "TIMEOUT",
      "action": "NEXT_HOP",
      "breaker": "REACHABILITY"
    },
    {
      "class": "TORN",
      "action": "RETRY",
      "breaker": "NONE"
    },
    {
      "class": "CONTEXT_OVERFLOW",
      "action": "LARGER_CONTEXT",
      "breaker": "NONE"
    },
    {
      "class": "INVALID_PARAM",
      "action": "STRIP",
      "breaker": "NONE"
    },
    {
      "class": "INVALID_REQUEST",
      "action": "STOP",
      "breaker": "NONE"
    },
    {
      "class": "CONTENT_POLICY",
      "action": "STOP",
      "breaker": "NONE"
    },
    {
      "class": "CANCELLED",
      "action": "STOP",
      "breaker": "NONE"
    }
  ],
  "rules": [
    {
      "class": "QUOTA",
      "code": [
        "insufficient_quota",
        "credit_balance_exhausted",
        "billing_not_active",
        "billing_hard_limit_reached"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "QUOTA",
      "code": [
        "enforced_spend_limit_reached"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "QUOTA",
      "type": [
        "billing_error"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "QUOTA",
      "status": [
        "400"
      ],
      "wire_api": [
        "MESSAGES"
      ],
      "message": "^Your credit balance is too low",
      "seen": "2026-08-22"
    },
    {
      "class": "QUOTA",
      "status": [
        "400"
      ],
      "wire_api": [
        "MESSAGES"
      ],
      "message": "^You have reached your specified (workspace )?API usage limits",
      "seen": "2026-08-01"
    },
    {
      "class": "QUOTA",
      "status": [
        "403",
        "429"
      ],
      "message": "^(Your team [^ ]+ has either used all available credits|Your newly created team doesn't have any credits|You have run out of credits)",
      "seen": "2026-07-16"
    },
    {
      "class": "QUOTA",
      "status": [
        "402"
      ],
      "seen": "2026-03-24"
    },
    {
      "class": "AUTH",
      "code": [
        "invalid_api_key",
        "account_deactivated"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "AUTH",
      "type": [
        "authentication_error"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "AUTH",
      "status": [
        "400"
      ],
      "message": "^Incorrect API key provided",
      "seen": "2026-08-01"
    },
    {
      "class": "AUTH",
      "status": [
        "401"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "CONTEXT_OVERFLOW",
      "code": [
        "context_length_exceeded"
      ],
      "seen": "2026-06-06"
    },
    {
      "class": "CONTEXT_OVERFLOW",
      "type": [
        "request_too_large",
        "exceed_context_size_error"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "CONTEXT_OVERFLOW",
      "status": [
        "400"
      ],
      "wire_api": [
        "MESSAGES"
      ],
      "message": "^(prompt is too long|input length and .max_tokens. exceed context limit)",
      "seen": "2026-05-26"
    },
    {
      "class": "CONTEXT_OVERFLOW",
      "status": [
        "400"
      ],
      "message": "^This (model|endpoint)'s maximum (context|prompt) length is ",
      "seen": "2026-01-30"
    },
    {
      "class": "CONTEXT_OVERFLOW",
      "status": [
        "413"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "CONTENT_POLICY",
      "code": [
        "content_filter",
        "content_policy_violation",
        "moderation_blocked",
        "invalid_prompt"
      ],
      "seen": "2026-04-27"
    },
    {
      "class": "CONTENT_POLICY",
      "status": [
        "400",
        "403"
      ],
      "message": "^(Output blocked by content filtering policy|Content Exists Risk|Content violates usage guidelines)",
      "seen": "2026-08-01"
    },
    {
      "class": "MODEL_NOT_FOUND",
      "code": [
        "model_not_found",
        "model_not_available"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "MODEL_NOT_FOUND",
      "status": [
        "400"
      ],
      "message": "^(Model Not Exist|The model .{1,100} does not exist)",
      "seen": "2026-08-01"
    },
    {
      "class": "INVALID_REQUEST",
      "status": [
        "404"
      ],
      "wire_api": [
        "RESPONSES"
      ],
      "message": "^(Item with id .{1,100} not found|Previous response with id .{1,100} not found)",
      "seen": "2026-08-01"
    },
    {
      "class": "MODEL_NOT_FOUND",
      "status": [
        "404",
        "410"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "INVALID_PARAM",
      "code": [
        "unsupported_parameter",
        "unsupported_value",
        "unknown_parameter"
      ],
      "parameter": "param",
      "seen": "2026-05-23"
    },
    {
      "class": "INVALID_PARAM",
      "status": [
        "400"
      ],
      "wire_api": [
        "MESSAGES"
      ],
      "message": "^.temperature. and .(top_p). cannot both be specified",
      "parameter": "message",
      "seen": "2026-05-23"
    },
    {
      "class": "INVALID_PARAM",
      "status": [
        "400"
      ],
      "wire_api": [
        "MESSAGES"
      ],
      "message": "^.([a-z_]{1,40}). (is deprecated for this model|may only be set to|is not supported)",
      "parameter": "message",
      "seen": "2026-08-01"
    },
    {
      "class": "INVALID_PARAM",
      "status": [
        "400"
      ],
      "message": "^([a-z_.]{1,60}): Extra inputs are not permitted",
      "parameter": "message",
      "seen": "2026-08-01"
    },
    {
      "class": "INVALID_PARAM",
      "status": [
        "400",
        "422"
      ],
      "type": [
        "extra_forbidden",
        "value_error.extra"
      ],
      "parameter": "param",
      "seen": "2026-08-01"
    },
    {
      "class": "INVALID_PARAM",
      "status": [
        "400",
        "422"
      ],
      "message": "^Argument not supported on this model: ([A-Za-z_]{1,40})",
      "parameter": "message",
      "seen": "2025-07-11"
    },
    {
      "class": "INVALID_PARAM",
      "status": [
        "400",
        "422"
      ],
      "message": "^Model [^ ]{1,100} does not support parameter ([A-Za-z_]{1,40})",
      "parameter": "message",
      "seen": "2026-09-15"
    },
    {
      "class": "PERMISSION",
      "type": [
        "permission_error"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "PERMISSION",
      "status": [
        "403",
        "451"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "OVERLOADED",
      "type": [
        "overloaded_error"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "OVERLOADED",
      "code": [
        "server_is_overloaded",
        "slow_down"
      ],
      "seen": "2026-08-10"
    },
    {
      "class": "OVERLOADED",
      "status": [
        "503",
        "529"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "RATE_LIMIT",
      "code": [
        "rate_limit_exceeded"
      ],
      "seen": "2026-02-10"
    },
    {
      "class": "RATE_LIMIT",
      "type": [
        "rate_limit_error",
        "rate_limit",
        "rate_limit_exceeded",
        "too_many_requests"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "RATE_LIMIT",
      "status": [
        "200"
      ],
      "message": "^([Rr]ate[ _-]?limit|[Tt]oo [Mm]any [Rr]equests)",
      "seen": "2024-08-10"
    },
    {
      "class": "RATE_LIMIT",
      "status": [
        "429"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "SERVER",
      "type": [
        "api_error",
        "server_error",
        "timeout_error",
        "internal_server_error"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "SERVER",
      "status": [
        "3xx",
        "408",
        "409",
        "5xx"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "INVALID_REQUEST",
      "status": [
        "4xx"
      ],
      "seen": "2026-08-01"
    },
    {
      "class": "INVALID_REQUEST",
      "type": [
        "invalid_request_error"
      ],
      "seen": "2026-08-01"
    }
  ]
} as const;
