import { limits } from '../limits.js';
import type { Clock } from './clock.js';
import { fingerprintOf } from './credential.js';
import { numberOf, type ParsedFault, parseFault, splitModel } from './faults/fault.js';
import type { Endpoint, ProviderName } from './providers.js';
import { matchesPattern } from './requests/model_rules.js';
import type { Fields } from './requests/parameters.js';
import type { Match, ResponseSpec, Rule, Script } from './script.js';

/** The parts of a request that rules match on. */
export interface RequestFacts {
  readonly provider: ProviderName;
  readonly endpoint: Endpoint;
  readonly path: string;
  /** The name of the model without its fault; empty: the request has none. */
  readonly model: string;
  readonly stream: boolean;
  /** The body, in whose texts a rule searches for a part of the prompt. */
  readonly body: Fields;
  readonly fingerprint: string | undefined;
}

/** Where a request itself states its fault. */
export interface StatedFaults {
  /** The value of the header `x-fake-fault`. */
  readonly header: string | undefined;
  /** The name of the model as it was sent. */
  readonly model: string;
}

export interface Selection {
  readonly fault: ParsedFault | undefined;
  readonly response: ResponseSpec;
}

/** The requests that a rule, or a fault of one client, has matched. */
interface Count {
  matched: number;
  first: number;
}

/** The value of `x-fake-fault` that turns off all faults of a request. */
const NO_FAULT = 'none';

/**
 * Selects the fault and the response of each request. The header has precedence over the name of the model, and that over
 * the rules of the script, of which the first applies that matches.
 */
export class Rules {
  private readonly since: number;
  private readonly counts: Count[];
  private readonly stated = new Map<string, Count>();

  constructor(
    readonly script: Script,
    private readonly clock: Clock,
  ) {
    this.since = clock.now();
    this.counts = script.rules.map(() => ({ matched: 0, first: 0 }));
  }

  /** Counts the request and selects. Throws a FaultError when the request states a fault that does not exist. */
  select(facts: RequestFacts, { header, model }: StatedFaults): Selection {
    const matching = this.script.rules.filter((rule, index) => this.matches(rule, index, facts));
    const response = { ...this.script.response, ...matching.find((rule) => rule.response)?.response };
    const stated = header ?? splitModel(model).fault;
    if (header === NO_FAULT) return { fault: undefined, response };
    if (stated === undefined) return { fault: matching.find((rule) => rule.fault)?.fault, response };
    const fault = parseFault(stated);
    return { fault: this.isActive(fault, this.countStated(facts, `${model} ${stated}`)) ? fault : undefined, response };
  }

  private matches({ match, fault }: Rule, index: number, facts: RequestFacts): boolean {
    if (!matchesFacts(match, facts)) return false;
    const elapsed = this.clock.now() - this.since;
    if (elapsed < (match.after_ms ?? 0) || elapsed >= (match.before_ms ?? Number.POSITIVE_INFINITY)) return false;
    const count = this.countOne(this.counts[index] as Count);
    const { first, last } = match.attempt ?? { first: 1, last: Number.POSITIVE_INFINITY };
    return count.matched >= first && count.matched <= last && (!fault || this.isActive(fault, count));
  }

  /** Counts the requests of one key to one path that state the same fault. */
  private countStated({ fingerprint, path }: RequestFacts, stated: string): Count {
    const key = `${path} ${fingerprint ?? ''} ${stated}`;
    const [oldest] = this.stated.keys();
    if (!this.stated.has(key) && this.stated.size >= limits.fakeProvider.countedClients && oldest !== undefined)
      this.stated.delete(oldest);
    const count = this.stated.get(key) ?? { matched: 0, first: 0 };
    this.stated.set(key, count);
    return this.countOne(count);
  }

  private countOne(count: Count): Count {
    count.matched++;
    if (count.matched === 1) count.first = this.clock.now();
    return count;
  }

  /** Whether a fault affects a request, according to the options that all faults have. */
  private isActive(fault: ParsedFault, { matched, first }: Count): boolean {
    const skipped = numberOf(fault, 'skip') ?? 0;
    const times = numberOf(fault, 'times') ?? Number.POSITIVE_INFINITY;
    const forMs = numberOf(fault, 'for_ms') ?? Number.POSITIVE_INFINITY;
    return matched > skipped && matched <= skipped + times && this.clock.now() - first < forMs;
  }
}

function matchesFacts(match: Match, facts: RequestFacts): boolean {
  const { model, path, provider, api, key, stream, prompt } = match;
  return (
    (model === undefined || matchesPattern(model, facts.model)) &&
    (path === undefined || matchesPattern(path, facts.path)) &&
    (provider === undefined || provider === facts.provider) &&
    (api === undefined || api === facts.endpoint) &&
    (key === undefined || (facts.fingerprint !== undefined && [key, fingerprintOf(key)].includes(facts.fingerprint))) &&
    (stream === undefined || stream === facts.stream) &&
    (prompt === undefined || hasText(facts.body, prompt))
  );
}

/** Whether one of the texts in a JSON value contains a part. The value is not nested deeply: isTooDeep has checked it. */
function hasText(value: unknown, part: string): boolean {
  if (typeof value === 'string') return value.includes(part);
  if (typeof value !== 'object' || value === null) return false;
  return Object.values(value).some((inner) => hasText(inner, part));
}
