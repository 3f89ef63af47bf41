import type { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';

/*
 * The names of OpenTelemetry's conventions for generative AI. They are in development: the constants of
 * @opentelemetry/semantic-conventions are deprecated, and the conventions have moved to a repository of their own.
 */

/** The version of the conventions that these names follow. */
export const GEN_AI_SCHEMA = 'https://opentelemetry.io/schemas/1.43.0';

export const OPERATION_DURATION = 'gen_ai.client.operation.duration';
export const TOKEN_USAGE = 'gen_ai.client.token.usage';

/** The bucket boundaries that the conventions recommend, in seconds and in tokens. */
export const DURATION_BUCKETS = [
  0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
];
export const TOKEN_BUCKETS = [1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216];

export type Attributes = Record<string, string | number | boolean | string[]>;

/** The names that the conventions define for providers. All other providers keep their name in the catalogue. */
const PROVIDER_NAMES: Readonly<Record<string, string>> = { claude: 'anthropic', grok: 'x_ai' };

/** The request parameters that the conventions name. */
const PARAMETERS: Readonly<Record<string, string>> = {
  temperature: 'gen_ai.request.temperature',
  top_p: 'gen_ai.request.top_p',
  max_tokens: 'gen_ai.request.max_tokens',
  seed: 'gen_ai.request.seed',
  stop_sequences: 'gen_ai.request.stop_sequences',
};

/** The operation and the model of a request. */
export const requestAttributes = (provider: string, model: string): Attributes => ({
  'gen_ai.operation.name': 'chat',
  'gen_ai.provider.name': PROVIDER_NAMES[provider] ?? provider,
  'gen_ai.request.model': model,
});

/** The attributes of a call that has ended. */
export function callAttributes(receipt: Receipt): Attributes {
  const attempt = receipt.attempts.at(-1);
  const { usage } = receipt;
  return defined({
    ...(attempt && requestAttributes(attempt.provider, attempt.model_name)),
    'gen_ai.response.model': attempt?.response_model || undefined,
    'gen_ai.response.finish_reasons': receipt.finish_reason ? [receipt.finish_reason] : undefined,
    'gen_ai.response.time_to_first_chunk': seconds(receipt.time_to_first_token_ms),
    'gen_ai.usage.input_tokens': usage?.input_tokens,
    'gen_ai.usage.output_tokens': usage?.output_tokens,
    'gen_ai.usage.cache_read.input_tokens': usage?.input_cache_read_tokens,
    'gen_ai.usage.cache_creation.input_tokens': usage?.input_cache_write_tokens,
    'gen_ai.usage.reasoning.output_tokens': usage?.output_reasoning_tokens,
    'gen_ai.agent.id': String(receipt.agent_id),
    'gen_ai.agent.name': receipt.agent,
    'error.type': errorType(receipt.error_class),
    ...parameterAttributes(receipt),
    'agentllm.receipt.id': receipt.receipt_id,
    'agentllm.config.id': receipt.config_id,
    'agentllm.revision': Number(receipt.revision),
    'agentllm.run.id': receipt.run_id || undefined,
    'agentllm.experiment.name': receipt.experiment || undefined,
    'agentllm.experiment.variant': receipt.variant || undefined,
    'agentllm.experiment.subject': receipt.subject || undefined,
    'agentllm.mode': word(receipt.mode, 'RECEIPT_MODE_'),
    'agentllm.outcome': word(receipt.outcome, 'RECEIPT_OUTCOME_'),
    'agentllm.hop.index': receipt.hop_index,
    'agentllm.attempts': receipt.attempts.length,
  });
}

/** The attributes of one attempt that has ended. Its usage is in the span of the call. */
export const attemptAttributes = (attempt: Receipt['attempts'][number]): Attributes =>
  defined({
    'gen_ai.response.model': attempt.response_model || undefined,
    'http.response.status_code': attempt.status,
    'error.type': errorType(attempt.error_class),
    'agentllm.hop.index': attempt.hop_index,
    'agentllm.config.id': attempt.config_id,
    'agentllm.action': word(attempt.action, 'ATTEMPT_ACTION_'),
    'agentllm.provider.request_id': attempt.provider_request_id || undefined,
    'agentllm.provider.code': attempt.provider_code || undefined,
  });

/** The class of an error as the value of `error.type`; undefined for a success. */
export const errorType = (errorClass: Receipt['error_class']): string | undefined =>
  errorClass === 'ERROR_CLASS_UNSPECIFIED' ? undefined : word(errorClass, 'ERROR_CLASS_');

function parameterAttributes({ parameters }: Receipt): Attributes {
  const known = parameters.filter(({ name }) => PARAMETERS[name] !== undefined);
  return Object.fromEntries(known.map(({ name, value_json }) => [PARAMETERS[name], JSON.parse(value_json)]));
}

const word = (value: string, prefix: string): string => value.replace(prefix, '').toLowerCase();
const seconds = (ms: number | undefined): number | undefined => (ms === undefined ? undefined : ms / 1000);

export const defined = (attributes: Readonly<Record<string, Attributes[string] | undefined>>): Attributes =>
  Object.fromEntries(Object.entries(attributes).filter(([, value]) => value !== undefined)) as Attributes;
