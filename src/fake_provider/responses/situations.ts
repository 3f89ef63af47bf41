import type { ProviderName } from '../providers.js';
import type { ProviderError } from './provider_error.js';

/*
 * The error responses of the providers, as data from their documentation and from public reports of August to November
 * 2026. `{model}`, `{key}`, `{param}`, `{wait}`, `{window}` and `{tokens}` are replaced.
 */

/** An error of one provider. `html` is the page of a proxy, instead of a body in JSON. */
export interface SituationError extends ProviderError {
  readonly html?: boolean;
}

/** An error for each provider; a provider without one sends that of OpenAI, in its own form. */
export type SituationErrors = Partial<Record<ProviderName, SituationError>> & { readonly openai: SituationError };

const INVALID = 'invalid_request_error';

export const situations = {
  rate_limit: {
    openai: {
      status: 429,
      message:
        'Rate limit reached for {model} in organization org-fake on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in {wait}. Visit https://platform.openai.com/account/rate-limits to learn more.',
      type: 'requests',
      code: 'rate_limit_exceeded',
    },
    deepseek: { status: 429, message: 'Rate limit reached', type: 'rate_limit_error', code: INVALID },
    xai: { status: 429, message: 'Too many requests for the model {model}. Please try again in {wait}.' },
    anthropic: {
      status: 429,
      message: 'This request would exceed the rate limit for your organization of 50 requests per minute.',
    },
  },
  quota: {
    openai: {
      status: 429,
      message:
        'You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.',
      type: 'insufficient_quota',
      code: 'insufficient_quota',
    },
    deepseek: { status: 402, message: 'Insufficient Balance', type: 'unknown_error', code: INVALID },
    xai: {
      status: 403,
      message:
        "Your newly created team doesn't have any credits or licenses yet. You can purchase those on https://console.x.ai/team/0.",
    },
    anthropic: {
      status: 402,
      message: "There's an issue with your billing or payment information. Please update it in the Console.",
    },
  },
  quota_without_code: { openai: { status: 429, message: 'INSUFFICIENT QUOTA' } },
  credit_exhausted: {
    openai: {
      status: 429,
      message: 'Your credit balance is exhausted. Add credits to continue.',
      type: 'insufficient_quota',
      code: 'credit_balance_exhausted',
    },
  },
  credit_balance: {
    openai: {
      status: 400,
      message:
        'Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.',
      type: INVALID,
    },
  },
  spend_limit: {
    openai: {
      status: 400,
      message: 'You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.',
      type: INVALID,
    },
  },
  enforced_spend_limit: {
    openai: {
      status: 429,
      message: 'Your organization has reached its spend limit.',
      type: 'rate_limit_error',
      details: { error_code: 'enforced_spend_limit_reached' },
    },
  },
  payment_required: {
    openai: { status: 402, message: 'Insufficient credits. Add more to continue.', type: 'payment_required' },
    deepseek: { status: 402, message: 'Insufficient Balance', type: 'unknown_error', code: INVALID },
    anthropic: { status: 402, message: "There's an issue with your billing or payment information." },
  },
  invalid_key: {
    openai: {
      status: 401,
      message:
        'Incorrect API key provided: {key}. You can find your API key at https://platform.openai.com/account/api-keys.',
      type: INVALID,
      code: 'invalid_api_key',
    },
    deepseek: {
      status: 401,
      message: 'Authentication Fails, Your api key: {key} is invalid',
      type: 'authentication_error',
      code: INVALID,
    },
    xai: {
      status: 400,
      message: 'Incorrect API key provided: {key}. You can obtain an API key from https://console.x.ai.',
    },
    anthropic: { status: 401, message: 'invalid x-api-key' },
  },
  missing_key: {
    openai: {
      status: 401,
      message:
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
      type: INVALID,
    },
    deepseek: {
      status: 401,
      message: 'Authentication Fails (governor)',
      type: 'authentication_error',
      code: INVALID,
    },
    xai: { status: 401, message: 'No API key provided. Pass it in the Authorization header.' },
    anthropic: { status: 401, message: 'x-api-key header is required' },
  },
  unauthorized: {
    openai: { status: 401, message: 'Unauthorized', type: INVALID, code: 'invalid_api_key' },
    anthropic: { status: 401, message: 'authentication failed' },
  },
  permission: {
    openai: {
      status: 403,
      message: 'You have insufficient permissions for this operation. Missing scopes: model.request.',
      type: INVALID,
      code: 'missing_scope',
    },
    deepseek: { status: 403, message: 'Permission denied', type: 'permission_error', code: INVALID },
    xai: { status: 403, message: 'Your API key does not have access to the model {model}.' },
    anthropic: { status: 403, message: 'Your API key does not have permission to use the specified resource.' },
  },
  region: {
    openai: {
      status: 403,
      message: 'Country, region, or territory not supported',
      type: 'request_forbidden',
      code: 'unsupported_country_region_territory',
    },
    anthropic: { status: 403, message: 'Request not allowed' },
  },
  model_not_found: {
    openai: {
      status: 404,
      message: 'The model `{model}` does not exist or you do not have access to it.',
      type: INVALID,
      code: 'model_not_found',
    },
    deepseek: { status: 400, message: 'Model Not Exist', type: INVALID, code: INVALID },
    xai: { status: 404, message: 'The model {model} does not exist or your team does not have access to it.' },
    anthropic: { status: 404, message: 'model: {model}' },
  },
  overloaded: {
    openai: {
      status: 503,
      message: 'The server is overloaded. Please try again later.',
      type: 'server_error',
      code: 'server_is_overloaded',
    },
    deepseek: {
      status: 503,
      message: 'Service is too busy. We advise users to temporarily switch to alternative LLM API service providers.',
      type: 'service_unavailable_error',
    },
    xai: {
      status: 503,
      message: 'Service temporarily unavailable. The model is at capacity and cannot serve this request.',
    },
    anthropic: { status: 529, message: 'Overloaded' },
  },
  slow_down: {
    openai: {
      status: 503,
      message: 'Slow down: your request rate has increased too quickly.',
      type: 'server_error',
      code: 'slow_down',
    },
  },
  server_error: {
    openai: {
      status: 500,
      message: 'The server had an error while processing your request. Sorry about that!',
      type: 'server_error',
    },
    xai: { status: 500, message: 'Internal error' },
    anthropic: { status: 500, message: 'Internal server error' },
  },
  bad_gateway: { openai: { status: 502, message: '502 Bad Gateway', html: true } },
  gateway_timeout: {
    openai: { status: 504, message: '504 Gateway Time-out', html: true },
    anthropic: { status: 504, message: 'The request timed out while processing.' },
  },
  request_timeout: { openai: { status: 408, message: 'Request timed out.', type: 'timeout' } },
  conflict: { openai: { status: 409, message: 'The resource is in use by another request.', type: 'conflict_error' } },
  context_length: {
    openai: {
      status: 400,
      message:
        "This model's maximum context length is {window} tokens. However, your messages resulted in {tokens} tokens. Please reduce the length of the messages.",
      type: INVALID,
      code: 'context_length_exceeded',
      param: 'messages',
    },
    deepseek: {
      status: 400,
      message:
        "This model's maximum context length is {window} tokens. However, you requested {tokens} tokens ({tokens} in the messages, 0 in the completion). Please reduce the length of the messages or completion.",
      type: INVALID,
      code: INVALID,
    },
    xai: {
      status: 400,
      message: "This model's maximum prompt length is {window} but the request contains {tokens} tokens.",
    },
    anthropic: { status: 400, message: 'prompt is too long: {tokens} tokens > {window} maximum' },
  },
  request_too_large: {
    openai: { status: 413, message: '413 Request Entity Too Large', html: true },
    anthropic: { status: 413, message: 'Request exceeds the maximum size' },
  },
  unsupported_parameter: {
    openai: {
      status: 400,
      message: "Unsupported parameter: '{param}' is not supported with this model.",
      type: INVALID,
      code: 'unsupported_parameter',
      param: '{param}',
    },
    deepseek: {
      status: 422,
      message: 'Invalid parameter: {param} is not supported with this model',
      type: INVALID,
      code: 'unsupported_parameter',
      param: '{param}',
    },
    xai: { status: 400, message: 'Argument not supported on this model: {param}' },
    anthropic: { status: 400, message: '`{param}` is deprecated for this model.' },
  },
  unsupported_value: {
    openai: {
      status: 400,
      message:
        "Unsupported value: '{param}' does not support this value with this model. Only the default value is supported.",
      type: INVALID,
      code: 'unsupported_value',
      param: '{param}',
    },
    deepseek: {
      status: 422,
      message: 'Invalid {param} value',
      type: INVALID,
      code: 'unsupported_value',
      param: '{param}',
    },
    xai: { status: 400, message: 'Argument not supported on this model: {param}' },
    anthropic: { status: 400, message: '`{param}` is deprecated for this model.' },
  },
  prefill_rejected: {
    openai: {
      status: 400,
      message: 'This model does not support a message of the assistant as the last message.',
      type: INVALID,
    },
    anthropic: {
      status: 400,
      message: 'This model does not support assistant message prefill. The conversation must end with a user message.',
    },
  },
  invalid_request: {
    openai: { status: 400, message: 'The request is invalid.', type: INVALID },
    deepseek: { status: 400, message: 'The request is invalid.', type: INVALID, code: INVALID },
  },
  unprocessable: {
    openai: {
      status: 422,
      message: 'Failed to deserialize the JSON body into the target type: messages: invalid type',
      type: INVALID,
      code: INVALID,
    },
  },
  content_policy: {
    openai: {
      status: 400,
      message: 'Your request was rejected as a result of our safety system.',
      type: INVALID,
      code: 'content_policy_violation',
    },
    deepseek: { status: 400, message: 'Content Exists Risk', type: INVALID, code: INVALID },
    xai: { status: 403, message: 'Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO' },
    anthropic: { status: 400, message: 'Output blocked by content filtering policy' },
  },
  content_filter: {
    openai: {
      status: 400,
      message: "The response was filtered due to the prompt triggering the provider's content management policy.",
      code: 'content_filter',
      param: 'prompt',
    },
    anthropic: { status: 400, message: 'Output blocked by content filtering policy' },
  },
} as const satisfies Record<string, SituationErrors>;

export type Situation = keyof typeof situations;

/** The error of a provider in a situation. */
export function situationError(situation: Situation, provider: ProviderName): SituationError {
  const errors: SituationErrors = situations[situation];
  return errors[provider] ?? errors.openai;
}

/** Replaces the placeholders of the texts of an error. */
export function withValues<E extends ProviderError>(error: E, values: Readonly<Record<string, string>>): E {
  const fill = (text: string) => text.replace(/\{(\w+)\}/g, (all, name: string) => values[name] ?? all);
  return {
    ...error,
    message: fill(error.message),
    ...(typeof error.param === 'string' && { param: fill(error.param) }),
  };
}
