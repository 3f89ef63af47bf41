import type { AgentRef } from '../../../gen/ts/agentllm/v1/agent.js';
import type { ParameterRule, PriceRates, PriceTier, PriceWindow } from '../../../gen/ts/agentllm/v1/provider.js';
import { limits } from '../../limits.js';

/** Sources of names for shell completion: resources of the service, or files. */
export type NameSource =
  | 'agents'
  | 'budgets'
  | 'configs'
  | 'credentials'
  | 'experiments'
  | 'models'
  | 'providers'
  | 'files';

/** A kind of value: its form on the command line, and its conversion to a request value. */
export interface Kind {
  /** Its placeholder in the help, `number` in `--temperature <number>`; absent for an option without a value. */
  readonly value?: string;
  /** Whether the option can be repeated; the values form a list. */
  readonly repeats?: boolean;
  /** Whether one value is a list, separated by commas. */
  readonly separated?: boolean;
  /** The permitted words. */
  readonly choices?: readonly string[];
  readonly nameSource?: NameSource;
  /** Words for shell completion, besides `choices`. */
  readonly suggestions?: readonly string[];
  /** Whether an option without a value also has a `--no-…` form. */
  readonly negatable?: boolean;
  /** Whether the value is read by a prompt or from standard input, never from the command line (stdin.ts). */
  readonly prompted?: boolean;
  /** Throws BadValue for a value that a request cannot represent. The service checks ranges. */
  read(text: string): unknown;
}

/** An invalid value; the message is a predicate, such as `must be a number`. */
export class BadValue extends Error {}

export const text: Kind = { value: 'text', read: (raw) => raw };
export const word = (value: string, live?: NameSource): Kind => ({
  value,
  ...(live && { nameSource: live }),
  read: (raw) => raw,
});
/** An option without a value; commander converts it to a boolean. */
export const flag: Kind = { read: (raw) => raw };
/** A flag that also has a `--no-…` form. */
export const negatableFlag: Kind = { ...flag, negatable: true };
export const file: Kind = word('file', 'files');

export const number: Kind = {
  value: 'number',
  read(raw) {
    if (!/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(raw)) throw new BadValue('must be a number');
    return Number(raw);
  },
};

export const integer: Kind = {
  value: 'number',
  read(raw) {
    const value = Number(raw);
    if (!/^[-+]?\d+$/.test(raw)) throw new BadValue('must be a whole number');
    if (Math.abs(value) > limits.maxInt32) throw new BadValue(`must be a whole number of at most ${limits.maxInt32}`);
    return value;
  },
};

/** Milliseconds, as a Duration. */
export const duration: Kind = {
  value: 'ms',
  read(raw) {
    const ms = integer.read(raw) as number;
    return { seconds: BigInt(Math.trunc(ms / 1000)), nanos: (ms % 1000) * 1_000_000 };
  },
};

const UNIT_SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** A time with its unit, `90d`, as a Duration. */
export const span: Kind = {
  value: 'time',
  read(raw) {
    const [, count, unit] = /^(\d{1,9})([smhd])$/.exec(raw) ?? [];
    if (!count || !unit) throw new BadValue('must be a time such as 60s, 15m, 24h or 90d');
    return { seconds: BigInt(Number(count) * (UNIT_SECONDS[unit] as number)), nanos: 0 };
  },
};

export const int64: Kind = {
  value: 'number',
  read(raw) {
    if (!/^[-+]?\d+$/.test(raw)) throw new BadValue('must be a whole number');
    const value = BigInt(raw.replace('+', ''));
    if (BigInt.asIntN(64, value) !== value) throw new BadValue('must be a whole number of at most 64 bits');
    return value;
  },
};

export const time: Kind = {
  value: 'date',
  read(raw) {
    const value = new Date(raw);
    if (!/^\d{4}-\d\d-\d\d/.test(raw) || Number.isNaN(value.getTime()))
      throw new BadValue('must be a day or a time such as 2026-01-31 or 2026-01-31T12:00:00Z');
    return value;
  },
};

export const list = (item: Kind): Kind => ({ ...item, repeats: true });

/** A percentage with at most two decimal places, as basis points. The percent sign can be omitted. */
export const percent: Kind = {
  value: 'percent',
  read(raw) {
    const [, whole, fraction = ''] = /^(\d{1,5})(?:\.(\d{1,2}))?%?$/.exec(raw) ?? [];
    if (whole === undefined) throw new BadValue('must be a percentage with at most 2 decimal places, such as 5%');
    return Number(whole) * 100 + Number(fraction.padEnd(2, '0'));
  },
};

/** One of a few words; each is an enum value without its prefix. */
export function choice(prefix: string, value: string, words: readonly string[]): Kind {
  return {
    value,
    choices: words,
    read(raw) {
      const normalized = raw.toLowerCase().replaceAll('_', '-');
      if (!words.includes(normalized)) throw new BadValue(`must be one of ${words.join(', ')}`);
      return `${prefix}${normalized.replaceAll('-', '_').toUpperCase()}`;
    },
  };
}

/** One of a few words, sent as a string. */
export const oneOf = (value: string, words: readonly string[]): Kind => ({ value, choices: words, read: (w) => w });

/** An agent by its name, or by its id when it is all digits; `name:42` is the name 42. */
export const agent: Kind = {
  value: 'agent',
  nameSource: 'agents',
  read(raw): Partial<AgentRef> {
    if (/^\d+$/.test(raw)) return { id: integer.read(raw) as number };
    return { name: raw.replace(/^name:/, '') };
  },
};

export const configId: Kind = {
  value: 'id',
  nameSource: 'configs',
  read(raw) {
    if (!/^[-+]?\d+$/.test(raw))
      throw new BadValue(
        'must be the id of a config; agentllm configs list --agent <agent> shows the configs of an agent',
      );
    return integer.read(raw);
  },
};
export const provider = word('provider', 'providers');
export const budget = word('name', 'budgets');
export const experiment = word('name', 'experiments');
export const credential = word('credential', 'credentials');

/** A provider and a model, as two values. Names of models may contain slashes; names of providers do not. */
export const model: Kind = {
  value: 'provider/model',
  nameSource: 'models',
  read(raw) {
    const at = raw.indexOf('/');
    if (at < 1 || at === raw.length - 1)
      throw new BadValue('must be provider/model, such as openai/gpt-5.4; agentllm models list shows the models');
    return [raw.slice(0, at), raw.slice(at + 1)];
  },
};

/** USD per million tokens, as micro-USD. It is converted as text, because floating point is not exact. */
export const usd: Kind = {
  value: 'usd',
  read(raw) {
    const [, whole, fraction = ''] = /^(\d+)(?:\.(\d{0,6}))?$/.exec(raw) ?? [];
    if (whole === undefined) throw new BadValue('must be an amount in USD with at most 6 decimal places');
    return BigInt(whole + fraction.padEnd(6, '0'));
  },
};

const TIER_FORM = 'must have the form above=272k,input=4,output=15';
const WINDOW_FORM = 'must have the form 01:00-04:00,days=mon-fri,input=0.3,output=1.2';

/** The rates of a tier or window: `input=4`, `output=15`. */
function ratesIn(parts: readonly string[], form: string): PriceRates {
  const rates: PriceRates = {};
  for (const part of parts) {
    const [, name = '', value = ''] = /^([\w-]+)=(.+)$/.exec(part) ?? [];
    const field = RATE_FIELDS[name];
    if (!field) throw new BadValue(`${form}; the rates are ${Object.keys(RATE_FIELDS).join(', ')}`);
    rates[field] = usd.read(value) as bigint;
  }
  return rates;
}

/** The names of rates on the command line. */
export const RATE_FIELDS: Readonly<Record<string, keyof PriceRates>> = {
  input: 'input_micro_usd_per_million',
  'cached-input': 'cached_input_micro_usd_per_million',
  'cache-write': 'cache_write_micro_usd_per_million',
  'cache-write-long': 'cache_write_long_micro_usd_per_million',
  output: 'output_micro_usd_per_million',
  reasoning: 'reasoning_micro_usd_per_million',
};

/** A context tier: `above=272k,input=4,output=15`. */
export const tier: Kind = {
  value: 'tier',
  read(raw): PriceTier {
    const [head = '', ...rest] = raw.split(',');
    const [, count, thousands] = /^above=(\d{1,9})(k?)$/.exec(head) ?? [];
    if (!count || rest.length === 0) throw new BadValue(TIER_FORM);
    return { above_input_tokens: Number(count) * (thousands ? 1000 : 1), rates: ratesIn(rest, TIER_FORM) };
  },
};

export const WEEKDAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'];

/** A time window in UTC: `01:00-04:00,days=mon-fri,input=0.3,output=1.2`. */
export const window: Kind = {
  value: 'window',
  read(raw): PriceWindow {
    const [head = '', ...rest] = raw.split(',');
    const [, startHour, start, endHour, end] = /^(\d\d):(\d\d)-(\d\d):(\d\d)$/.exec(head) ?? [];
    const days = rest.filter((part) => part.startsWith('days='));
    const rates = rest.filter((part) => !days.includes(part));
    if (startHour === undefined || rates.length === 0 || days.length > 1) throw new BadValue(WINDOW_FORM);
    return {
      start_minute: Number(startHour) * 60 + Number(start),
      end_minute: Number(endHour) * 60 + Number(end) || 1440,
      rates: ratesIn(rates, WINDOW_FORM),
      tiers: [],
      weekdays: days.flatMap(weekdaysIn),
    };
  },
};

/** `days=mon-fri|sun` as numbers, Monday first. */
function weekdaysIn(part: string): number[] {
  return part
    .slice('days='.length)
    .split('|')
    .flatMap((range) => {
      const [first, last = first] = range.split('-').map((day) => WEEKDAYS.indexOf(day.toLowerCase()));
      if (first === undefined || last === undefined || first < 0 || last < first) throw new BadValue(WINDOW_FORM);
      return Array.from({ length: last - first + 1 }, (_, at) => first + at + 1);
    });
}

/** An amount in USD, returned in nano-USD. As for `usd`, the digits are converted as text. */
export const amount: Kind = {
  value: 'usd',
  read(raw) {
    const [, whole, fraction = ''] = /^(\d{1,12})(?:\.(\d{1,9}))?$/.exec(raw) ?? [];
    if (whole === undefined) throw new BadValue('must be an amount in USD with at most 9 decimal places');
    return BigInt(whole + fraction.padEnd(9, '0'));
  },
};

const RULE_NUMBERS = ['minimum', 'maximum', 'required_default'];
const RULE_LISTS = ['allowed_values', 'not_with', 'accepted_with_reasoning_effort'];
const RULE_FORM = 'must have the form temperature=rejected or max_tokens=accepted,wire_name=max_completion_tokens';

/** A parameter rule: `temperature=accepted,minimum=0,maximum=1,not_with=top_p|seed`. */
export const rule: Kind = {
  value: 'rule',
  read(raw): Partial<ParameterRule> {
    const [head = '', ...rest] = raw.split(',');
    const [, parameter, support] = /^(\w+)=(\w+)$/.exec(head) ?? [];
    if (!parameter || !support) throw new BadValue(RULE_FORM);
    const read: Record<string, unknown> = {
      parameter,
      support: choice('PARAMETER_SUPPORT_', '', ['accepted', 'rejected', 'ignored']).read(support),
    };
    for (const part of rest) {
      const [, key = '', value = ''] = /^(\w+)=(.+)$/.exec(part) ?? [];
      if (RULE_NUMBERS.includes(key)) read[key] = number.read(value);
      else if (RULE_LISTS.includes(key)) read[key] = value.split('|');
      else if (key === 'wire_name') read[key] = value;
      else throw new BadValue(RULE_FORM);
    }
    return read as Partial<ParameterRule>;
  },
};

/** An API key, which is prompted for or read from standard input. */
export const secret: Kind = { prompted: true, read: (raw) => raw };
