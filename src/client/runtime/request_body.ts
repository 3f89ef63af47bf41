import type { WireApi } from '../../../gen/ts/agentllm/v1/provider.js';
import type { SentParameter } from '../../domain/adapt.js';
import type { Parameter } from '../../domain/parameters.js';
import { isFields } from './error_body.js';

type Body = Record<string, unknown>;

/** The names under which a parameter can be in the body of a request, in any wire API. */
const WIRE_NAMES: Readonly<Record<Exclude<Parameter, 'thinking_budget_tokens'>, readonly string[]>> = {
  temperature: ['temperature'],
  top_p: ['top_p'],
  max_tokens: ['max_tokens', 'max_completion_tokens', 'max_output_tokens'],
  reasoning_effort: ['reasoning_effort', 'reasoning.effort'],
  stop_sequences: ['stop', 'stop_sequences'],
  seed: ['seed'],
};

const ALL_WIRE_NAMES = Object.values(WIRE_NAMES).flat();

/** Fields that carry the conversation or determine the form of the response; they are never omitted. */
const REQUIRED = new Set([
  'model',
  'messages',
  'input',
  'instructions',
  'system',
  'tools',
  'tool_choice',
  'response_format',
  'text',
  'output_config',
  'output_format',
  'stream',
]);

/** The parts of a request body that the chain determines. */
export interface BodySettings {
  readonly wireApi: WireApi;
  /** The parameters to send. No other value of these parameters is sent. */
  readonly parameters: readonly SentParameter[];
  /** Fields to omit because the model rejected them, by their names in the body. */
  readonly omitted: readonly string[];
}

/** The body of a request as a JSON object; undefined if it is not a JSON object. */
export function parseBody(body: unknown): Body | undefined {
  if (typeof body !== 'string') return undefined;
  try {
    const json: unknown = JSON.parse(body);
    return isFields(json) ? (json as Body) : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Applies the settings to a body that a provider package created, in place. The packages adapt parameters by the names of
 * models that they know; the catalogue knows the models that an agent uses.
 */
export function applySettings(body: Body, { wireApi, parameters, omitted }: BodySettings): void {
  const { max_tokens } = body;
  for (const name of ALL_WIRE_NAMES) deletePath(body, name);
  if (isThinkingBudget(body['thinking'])) delete body['thinking'];
  for (const { wire_name, value } of parameters) setPath(body, wire_name, value);
  // The Messages API requires a limit. If the hop has no limit, the limit of the package is used.
  if (wireApi === 'WIRE_API_MESSAGES' && max_tokens !== undefined) body['max_tokens'] ??= max_tokens;
  if (wireApi === 'WIRE_API_CHAT_COMPLETIONS' && body['stream'] === true)
    body['stream_options'] ??= { include_usage: true };
  if (wireApi === 'WIRE_API_RESPONSES') body['store'] ??= false;
  for (const name of omitted) deletePath(body, name);
}

/**
 * The name in the body of a parameter that the provider rejected; undefined if the body does not have it, or if a request
 * without it would be a different one.
 */
export function omittableName(body: Body | undefined, parameter: string | undefined): string | undefined {
  if (!body || parameter === undefined) return undefined;
  const snakeCase = parameter.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return [parameter, snakeCase].find((name) => {
    const [top = ''] = name.split('.');
    return !REQUIRED.has(top) && hasPath(body, name);
  });
}

/** The name of a parameter in AgentLLMConfig; a field that no config has keeps its name in the body. */
export function parameterName(wireName: string, parameters: readonly SentParameter[]): string {
  return parameters.find(({ wire_name }) => wire_name === wireName)?.name ?? wireName;
}

/** Whether a value is the form of `thinking_budget_tokens`, and not an option that only the caller can set. */
const isThinkingBudget = (thinking: unknown): boolean =>
  isFields(thinking) && (thinking['type'] === 'disabled' || 'budget_tokens' in thinking);

/** Sets a value at a path whose names are separated by dots. */
function setPath(body: Body, path: string, value: unknown): void {
  const names = path.split('.');
  const last = names.pop() as string;
  let target = body;
  for (const name of names) {
    const inner = isFields(target[name]) ? { ...target[name] } : {};
    target[name] = inner;
    target = inner;
  }
  target[last] = value;
}

/** Deletes the value at a path, and objects that are empty without it. */
function deletePath(body: Body, path: string): void {
  const dot = path.indexOf('.');
  if (dot < 0) {
    if (path in body) delete body[path];
    return;
  }
  const name = path.slice(0, dot);
  if (!isFields(body[name])) return;
  const inner = { ...body[name] };
  deletePath(inner, path.slice(dot + 1));
  if (Object.keys(inner).length > 0) body[name] = inner;
  else delete body[name];
}

function hasPath(body: Body, path: string): boolean {
  let target: unknown = body;
  for (const name of path.split('.')) {
    if (!isFields(target) || target[name] === undefined) return false;
    target = target[name];
  }
  return true;
}
