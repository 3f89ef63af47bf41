import type { ProviderName, Wording } from '../providers.js';
import { invalidRequest } from '../responses/provider_error.js';
import type { Fields } from './parameters.js';
import { unsupportedParameter } from './wording.js';

/** What a model accepts, beyond what its API accepts. Absent fields have no restriction. */
export interface ModelRule {
  /** Parameters that the model rejects. */
  readonly rejects?: readonly string[];
  /** Parameters that the model rejects unless the reasoning effort is `none`. */
  readonly rejects_with_reasoning?: readonly string[];
  /** Parameters of which the model accepts only one. */
  readonly exclusive?: readonly string[];
  /** false: a message of the assistant must not be the last one. */
  readonly prefill?: boolean;
  /** false: the model must be free to choose whether it calls a tool. */
  readonly forced_tool_choice?: boolean;
  /** false: messages must not contain images. */
  readonly images?: boolean;
  readonly context_window_tokens?: number;
  readonly max_output_tokens?: number;
}

interface BuiltInRule extends ModelRule {
  readonly provider: ProviderName;
  readonly pattern: RegExp;
}

const SAMPLING = ['temperature', 'top_p'];
const REASONING = ['logprobs', 'top_logprobs', 'presence_penalty', 'frequency_penalty', 'logit_bias', 'max_tokens'];
const CLAUDE_SAMPLING = ['temperature', 'top_p', 'top_k'];

/**
 * What the models of the providers reject. All rules that match a model apply; a later one replaces the fields of an
 * earlier one. This table is data, as of November 2026.
 */
const BUILT_IN: readonly BuiltInRule[] = [
  {
    provider: 'openai',
    pattern: /^(o\d+(-|$)|gpt-([5-9]|1\d)(?!-chat))/,
    rejects: [...SAMPLING, ...REASONING],
  },
  {
    provider: 'openai',
    pattern: /^gpt-(5\.[1-9]|[6-9]|1\d)/,
    rejects: REASONING,
    rejects_with_reasoning: SAMPLING,
  },
  { provider: 'openai', pattern: /-search-preview/, rejects: ['temperature'] },
  { provider: 'deepseek', pattern: /^deepseek-(chat|reasoner)/, images: false },
  { provider: 'deepseek', pattern: /reasoner/, rejects: ['logprobs', 'top_logprobs'], forced_tool_choice: false },
  {
    provider: 'xai',
    pattern: /^grok-(?!.*non-reasoning)/,
    rejects: ['presence_penalty', 'frequency_penalty', 'stop'],
  },
  { provider: 'xai', pattern: /^grok-4\.20-/, rejects: ['presence_penalty', 'frequency_penalty', 'reasoning_effort'] },
  // A model that is newer than this table is taken for one of the newest.
  { provider: 'anthropic', pattern: /^claude-/, rejects: CLAUDE_SAMPLING, prefill: false },
  {
    provider: 'anthropic',
    pattern: /^claude-(3|2|instant|(opus|sonnet|haiku)-4(-[0156])?(-\d{8})?$)/,
    rejects: [],
    prefill: true,
    exclusive: [],
  },
  {
    provider: 'anthropic',
    pattern: /^claude-(opus|sonnet|haiku)-4-[156](-\d{8})?$/,
    exclusive: ['temperature', 'top_p'],
  },
  { provider: 'anthropic', pattern: /^claude-(opus|sonnet)-4-6/, prefill: false },
  { provider: 'anthropic', pattern: /^claude-(fable-5-1|(opus|sonnet)-5-5)/, forced_tool_choice: false },
];

/** A rule of a script; `match` is the name of a model, in which `*` stands for any characters. */
export interface NamedModelRule extends ModelRule {
  readonly match: string;
}

/** Whether a text matches a pattern in which `*` stands for any characters. */
export function matchesPattern(pattern: string, text: string): boolean {
  const [first = '', ...rest] = pattern.split('*');
  if (rest.length === 0) return text === pattern;
  const last = rest.pop() as string;
  if (!text.startsWith(first) || !text.endsWith(last) || text.length < first.length + last.length) return false;
  let at = first.length;
  for (const part of rest) {
    const found = text.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return at <= text.length - last.length;
}

/** The rule for a model: the built-in rules of its provider, then the rules of the script. */
export function ruleOfModel(provider: ProviderName, model: string, script: readonly NamedModelRule[]): ModelRule {
  const builtIn = BUILT_IN.filter((rule) => rule.provider === provider && rule.pattern.test(model));
  const own = script.filter(({ match }) => matchesPattern(match, model));
  return Object.assign({}, ...builtIn, ...own) as ModelRule;
}

/** Rejects a parameter that the model does not accept. */
export function checkModelParameters(body: Fields, rule: ModelRule, wording: Wording, effort: unknown): void {
  const isSent = (name: string) => body[name] !== undefined && body[name] !== null;
  const rejected = [...(rule.rejects ?? []), ...(effort === 'none' ? [] : (rule.rejects_with_reasoning ?? []))];
  const first = rejected.find(isSent);
  if (first !== undefined)
    throw unsupportedParameter(wording, first, first === 'max_tokens' ? "Use 'max_completion_tokens' instead." : '');
  const exclusive = (rule.exclusive ?? []).filter(isSent);
  if (exclusive.length > 1)
    throw invalidRequest(
      `${exclusive.map((name) => `\`${name}\``).join(' and ')} cannot both be specified for this model. Please use only one.`,
    );
}
