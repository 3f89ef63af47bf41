import type { WireApi } from '../../../gen/ts/agentllm/v1/provider.js';
import type { ErrorClass } from '../../../gen/ts/agentllm/v1/receipt.js';
import { errorRules } from '../../../gen/ts/error_rules.js';
import type { ProviderError } from './error_body.js';

/** What is known about an error response. */
export interface ErrorFacts {
  readonly wireApi: WireApi;
  /** The HTTP status. */
  readonly status: number;
  readonly error: ProviderError;
}

/** The class of an error response. */
export interface Classification {
  readonly errorClass: ErrorClass;
  /** The parameter that the provider rejects, by the name that it uses; only for INVALID_PARAM. */
  readonly parameter?: string | undefined;
}

/** A rule of `conformance/error_rules.json`. */
interface Rule {
  readonly class: (typeof errorRules.rules)[number]['class'];
  readonly wire_api?: readonly string[];
  readonly status?: readonly string[];
  readonly type?: readonly string[];
  readonly code?: readonly string[];
  readonly message?: string;
  readonly parameter?: 'param' | 'message';
}

interface CompiledRule extends Rule {
  readonly pattern: RegExp | undefined;
}

const rules: readonly CompiledRule[] = errorRules.rules.map((rule: Rule) => ({
  ...rule,
  pattern: rule.message === undefined ? undefined : new RegExp(rule.message),
}));

/** The class of an error response: that of the first rule that matches. */
export function classify(facts: ErrorFacts): Classification {
  const status = facts.error.status ?? facts.status;
  for (const rule of rules) {
    if (!matches(rule, facts, status)) continue;
    const groups = groupsOf(rule, facts.error.message);
    if (groups) return classification(rule, groups, facts.error);
  }
  return { errorClass: status >= 400 && status < 500 ? 'ERROR_CLASS_INVALID_REQUEST' : 'ERROR_CLASS_SERVER' };
}

/** The groups of the pattern; empty if the rule has no pattern, undefined if the pattern does not match. */
function groupsOf({ pattern }: CompiledRule, message: string | undefined): readonly (string | undefined)[] | undefined {
  if (!pattern) return [];
  return message === undefined ? undefined : (pattern.exec(message) ?? undefined);
}

function matches(rule: Rule, { wireApi, error }: ErrorFacts, status: number): boolean {
  const accepts = (list: readonly string[] | undefined, value: string | undefined) =>
    !list || (value !== undefined && list.includes(value));
  return (
    accepts(rule.wire_api, wireApi.replace('WIRE_API_', '')) &&
    (accepts(rule.status, String(status)) || accepts(rule.status, `${Math.floor(status / 100)}xx`)) &&
    accepts(rule.type, error.type) &&
    accepts(rule.code, error.code)
  );
}

function classification(rule: Rule, groups: readonly (string | undefined)[], error: ProviderError): Classification {
  const errorClass: ErrorClass = `ERROR_CLASS_${rule.class}`;
  if (rule.parameter === undefined) return { errorClass };
  return { errorClass, parameter: rule.parameter === 'param' ? error.param : groups[1] };
}
