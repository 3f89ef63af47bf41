import { limits } from '../../limits.js';
import { COMMON_OPTIONS, type FaultDefinition, type FaultOption, faultCatalogue } from './fault_catalogue.js';

/** A fault with its options, as in `rate-limit,retry_after=2`. */
export interface ParsedFault {
  /** The text from which it was read. */
  readonly text: string;
  readonly definition: FaultDefinition;
  readonly options: Readonly<Record<string, number | string>>;
}

/** A fault that does not exist, or that has an invalid option. */
export class FaultError extends Error {}

const LIST_HINT = 'agentllm fake-provider --list-faults shows the faults';
const SHOWN_CHARACTERS = 60;

/** Reads `name[,option=value]…`. Throws a FaultError. */
export function parseFault(text: string): ParsedFault {
  if (text.length > limits.fakeProvider.faultText)
    throw new FaultError(`a fault has at most ${limits.fakeProvider.faultText} characters`);
  const [name = '', ...written] = text.split(',').map((part) => part.trim());
  const definition = faultCatalogue.find((one) => one.name === name);
  if (!definition) throw new FaultError(`there is no fault ${quoted(name)}; ${LIST_HINT}`);
  const known = { ...definition.options, ...COMMON_OPTIONS };
  const presets = Object.entries(known).flatMap(([key, { default: preset }]) =>
    preset === undefined ? [] : [[key, preset] as const],
  );
  const options: Record<string, number | string> = Object.fromEntries(presets);
  for (const part of written) {
    const [, key = '', value = ''] = /^([^=]*)=(.*)$/.exec(part) ?? [];
    const option = Object.hasOwn(known, key) ? known[key] : undefined;
    if (!option)
      throw new FaultError(`${name} has no option ${quoted(key || part)}; it has ${Object.keys(known).join(', ')}`);
    options[key] = readOption(key, option, value);
  }
  return { text, definition, options };
}

function readOption(key: string, { kind, min = 0, max = limits.maxInt32, choices }: FaultOption, value: string) {
  if (kind === 'word') {
    if (choices ? choices.includes(value) : /^[\w.-]+$/.test(value)) return value;
    throw new FaultError(`${key} must be ${choices ? `one of ${choices.join(', ')}` : 'a word'}, not ${quoted(value)}`);
  }
  const number = Number(value);
  if (/^\d+(\.\d+)?$/.test(value) && number >= min && number <= max) return number;
  throw new FaultError(`${key} must be a number from ${min} to ${max}, not ${quoted(value)}`);
}

const quoted = (text: string) =>
  JSON.stringify(text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}…` : text);

/** The value of an option that is a number; undefined: not set. */
export const numberOf = ({ options }: ParsedFault, name: string): number | undefined => {
  const value = options[name];
  return typeof value === 'number' ? value : undefined;
};

export const wordOf = ({ options }: ParsedFault, name: string): string | undefined => {
  const value = options[name];
  return typeof value === 'string' ? value : undefined;
};

const SUFFIX = /^(?<model>.*?)@fault=(?<fault>.*)$/s;

/** The name of a model without its fault: `gpt-4o@fault=rate-limit` is `gpt-4o` with the fault `rate-limit`. */
export function splitModel(name: string): { readonly model: string; readonly fault?: string } {
  const { model, fault } = SUFFIX.exec(name)?.groups ?? {};
  return model === undefined || fault === undefined ? { model: name } : { model, fault };
}
