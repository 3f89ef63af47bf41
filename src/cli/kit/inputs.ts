import { Argument, Option } from 'commander';
import { BadValue, type Kind } from './values.js';

/*
 * The arguments and options of a command are described by data (Input). Three things are derived from this data: the
 * options with their help, the request message with its update mask, and the argument that a field error of the service
 * belongs to.
 */

/** One argument or option of a command. */
export interface Input {
  /** An option without its dashes, `max-tokens`, or an argument in the brackets of commander: `<agent>`. */
  readonly name: string;
  /** Its path in the request; two paths for a kind with two values. Absent: the command itself reads the value. */
  readonly to?: string | readonly string[];
  readonly kind: Kind;
  /** The help text: a phrase without a full stop, with the range and the default. */
  readonly help: string;
  /** Whether `--unset` can clear it. */
  readonly clears?: boolean;
  /** Its path in the update mask, if it differs from `to`; empty: it is never in the mask. */
  readonly mask?: string;
  /** Its heading in the help. */
  readonly group?: string;
  readonly short?: string;
  /** Whether a key is always read, also without its option. */
  readonly required?: boolean;
}

/** The argument that set a field of the request. */
export interface Cause {
  readonly path: string;
  /** The argument as typed: `--temperature 5`, or the value of a positional argument. */
  readonly typed: string;
}

/** A problem with one argument. */
export interface Problem {
  readonly typed: string;
  readonly description: string;
}

/** An invalid command line, detected before a request is sent. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  constructor(
    message: string,
    readonly problems: readonly Problem[] = [],
  ) {
    super(message);
  }

  static of(problems: readonly Problem[]): UsageError {
    return new UsageError('the command line', problems);
  }
}

/** The values that commander has read, by the names of the inputs. */
export type Typed = ReadonlyMap<string, string | readonly string[] | boolean>;

/** The command line, converted to a request. */
export interface ParsedInputs {
  readonly message: Readonly<Record<string, unknown>>;
  /** The paths in the request that were set or cleared. */
  readonly touched: ReadonlySet<string>;
  readonly causes: readonly Cause[];
  /** The values of inputs without a path in the request. */
  readonly local: ReadonlyMap<string, unknown>;
}

export const isArgument = ({ name }: Input): boolean => /^[<[]/.test(name);
export const requestPaths = ({ to }: Input): readonly string[] => (to === undefined ? [] : [to].flat());

/** An input as it is typed: `--max-tokens`, `<agent>`. */
export const typedName = (input: Input): string => (isArgument(input) ? input.name : `--${input.name}`);

/** The input of each option and argument, for shell completion. */
export const inputOf = new WeakMap<Option | Argument, Input>();

const helpOf = ({ help, kind }: Input) =>
  kind.choices ? `${help}: ${kind.choices.join(', ')}`.replace(/, ([^,]+)$/, ' or $1') : help;

export function argumentOf(input: Input): Argument {
  const argument = new Argument(input.name, helpOf(input));
  inputOf.set(argument, input);
  return argument;
}

/** The options of an input: two for a flag with a `--no-` form. */
export function optionsOf(input: Input): Option[] {
  const { name, kind, short, group = 'Options:' } = input;
  const start = short ? `-${short}, --${name}` : `--${name}`;
  // A value after a key option is parsed so that it can be rejected: otherwise it would count as an argument.
  const value = kind.prompted ? ' [value]' : kind.value ? ` <${kind.value}>` : '';
  const option = new Option(`${start}${value}`, helpOf(input));
  if (kind.repeats) option.argParser((value: string, before: string[] = []) => [...before, value]);
  const denied = kind.negatable ? [new Option(`--no-${name}`).hideHelp()] : [];
  for (const one of [option, ...denied]) inputOf.set(one.helpGroup(group), input);
  return [option, ...denied];
}

/** Sets the value at a path of a message. */
export function put(message: Record<string, unknown>, path: string, value: unknown): void {
  const steps = path.split('.');
  const last = steps.pop() as string;
  let at = message;
  for (const step of steps) {
    at[step] = { ...((at[step] as object | undefined) ?? {}) };
    at = at[step] as Record<string, unknown>;
  }
  at[last] = value;
}

/** Converts the command line to a request. `start` holds the fields that were read from a file. */
export function readInputs(inputs: readonly Input[], typed: Typed, start: Partial<ParsedInputs> = {}): ParsedInputs {
  const message: Record<string, unknown> = { ...start.message };
  const touched = new Set(start.touched);
  const causes: Cause[] = [...(start.causes ?? [])];
  const local = new Map(start.local);
  const problems: Problem[] = [];
  const setBy = new Map<string, Input>();
  for (const input of inputs) {
    const typedValue = typed.get(input.name);
    if (typedValue === undefined) continue;
    const value = readValue(input, typedValue, causes, problems);
    const paths = requestPaths(input);
    if (paths.length === 0) local.set(input.name, value);
    paths.forEach((path, index) => {
      const earlier = setBy.get(path);
      if (earlier)
        problems.push({
          typed: typedName(input),
          description: `sets the same field as ${typedName(earlier)}: use one of them`,
        });
      setBy.set(path, input);
      touched.add(path);
      put(message, path, paths.length > 1 && Array.isArray(value) ? value[index] : value);
    });
  }
  if (problems.length > 0) throw UsageError.of(problems);
  return { message, touched, causes, local };
}

function readValue(
  input: Input,
  typedValue: string | readonly string[] | boolean,
  causes: Cause[],
  problems: Problem[],
) {
  const typed = (value?: string) =>
    isArgument(input) ? value || input.name : [`--${input.name}`, value].filter((x) => x !== undefined).join(' ');
  const [path = ''] = requestPaths(input);
  const read = (one: string | boolean) => {
    try {
      return input.kind.read(one as string);
    } catch (error) {
      if (!(error instanceof BadValue)) throw error;
      problems.push({ typed: typed(String(one)), description: error.message });
      return undefined;
    }
  };
  if (typeof typedValue === 'boolean') {
    causes.push({ path, typed: typedValue ? `--${input.name}` : `--no-${input.name}` });
    return typedValue;
  }
  if (typeof typedValue === 'string') {
    for (const path of requestPaths(input)) causes.push({ path, typed: typed(typedValue) });
    return read(typedValue);
  }
  causes.push({ path, typed: typedName(input) });
  typedValue.forEach((one, index) => void causes.push({ path: `${path}[${index}]`, typed: typed(one) }));
  return typedValue.map(read);
}

/** Clears the fields that `--unset` names: they are left out of the message and added to the mask. */
export function unset(inputs: readonly Input[], names: readonly string[], parsed: ParsedInputs): ParsedInputs {
  const message = structuredClone(parsed.message) as Record<string, unknown>;
  const touched = new Set(parsed.touched);
  const causes = [...parsed.causes];
  const problems: Problem[] = [];
  const clearable = inputs.filter(({ clears }) => clears);
  for (const name of names.flatMap((one) => one.split(',')).map((one) => one.trim().replace(/^--/, ''))) {
    const input = clearable.find((one) => one.name === name.replaceAll('_', '-'));
    const typed = `--unset ${name}`;
    if (!input) problems.push({ typed, description: `must be one of ${clearable.map((one) => one.name).join(', ')}` });
    for (const path of input ? requestPaths(input) : []) {
      if (parsed.touched.has(path) && parsed.causes.some((cause) => cause.path === path))
        problems.push({ typed, description: 'is also set on the command line: use one of the two' });
      put(message, path, undefined);
      touched.add(path);
      causes.push({ path, typed });
    }
  }
  if (problems.length > 0) throw UsageError.of(problems);
  return { ...parsed, message, touched, causes };
}

/** The update mask: the paths that were set or cleared, relative to the resource. */
export function maskOf(inputs: readonly Input[], touched: ReadonlySet<string>, body: string): string[] {
  const paths = inputs
    .filter((input) => input.mask !== '')
    .flatMap((input) => requestPaths(input).map((path) => ({ path, mask: input.mask ?? path.slice(body.length + 1) })))
    .filter(({ path }) => path.startsWith(`${body}.`) && touched.has(path))
    .map(({ mask }) => mask);
  return [...new Set(paths)];
}

/** The argument that set the field of a violation; the path of the field when no argument did. */
export function argumentFor(field: string, inputs: readonly Input[], causes: readonly Cause[]): string {
  const typedWhere = (fits: (path: string) => boolean) =>
    causes.findLast(({ path }) => path !== '' && fits(path))?.typed;
  const named = inputs.find((input) => requestPaths(input).includes(field));
  return (
    typedWhere((path) => path === field) ??
    typedWhere((path) => field.startsWith(`${path}.`) || field.startsWith(`${path}[`)) ??
    (named && typedName(named)) ??
    typedWhere((path) => path.startsWith(`${field}.`)) ??
    field
  );
}
