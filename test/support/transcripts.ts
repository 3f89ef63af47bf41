import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { packageFile } from '../../src/package.js';
import { freePort } from './ports.js';

/*
 * Transcripts in the documentation: fenced `console` blocks in which a line that begins with `$ ` is a command and the
 * following lines are its output. All commands of a page run in one shell, in an empty directory, in order.
 *
 * `agentllm serve` runs in the background until a line `^C` or the end of the page, and so does a command that ends in
 * `&`, whose output belongs to the step during which it is printed. A line `…` in an output matches any number of
 * lines. A block ```` ```ts agent.mts ```` is the file of that name.
 */

export interface Step {
  /** Without the prompt; lines that end in a backslash are joined. */
  readonly command: string;
  readonly output: string;
  /** The start of the output in the page, in characters; `to` is its end. */
  readonly from: number;
  readonly to: number;
}

/** The steps of all transcripts of a page, in order. */
export function stepsOf(page: string): Step[] {
  const blocks = [...page.matchAll(/^```console\n([\s\S]*?)^```$/gm)];
  return blocks.flatMap((block) => {
    const text = block[1] as string;
    const start = block.index + '```console\n'.length;
    const prompts = [...text.matchAll(/^\$ ((?:.*\\\n)*.*)\n/gm)];
    return prompts.map((prompt, at) => {
      const from = prompt.index + prompt[0].length;
      const to = prompts[at + 1]?.index ?? text.length;
      return { command: prompt[1] as string, output: text.slice(from, to), from: start + from, to: start + to };
    });
  });
}

/** The files that a page asks its reader to write: code blocks with a file name after the language. */
export const filesOf = (page: string): { readonly name: string; readonly content: string }[] =>
  [...page.matchAll(/^```\w+ ([\w.-]+)\n([\s\S]*?)^```$/gm)].map(([, name = '', content = '']) => ({ name, content }));

/** Text that differs between runs and machines. */
const VARYING: readonly (readonly [RegExp, string])[] = [
  [/\bal_[a-z2-7]{10}_[\w-]{43}/g, '<token>'],
  [/\bal_[a-z2-7]{10}\b/g, '<token id>'],
  [/\b(just now|\d+ ?(s|min|h|d|seconds?|minutes?|hours?|days?) ago)\b/g, '<ago>'],
  // A column of milliseconds before the column of the age.
  [/\d+(?= +<ago>)/g, '<measured>'],
  [/\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?/g, '<time>'],
  [/\buntil \d{4}-\d\d-\d\d\b/g, 'until <day>'],
  [/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/g, '<uuid>'],
  [/\b[0-9a-f]{8}-\d+-[\w-]+/g, '<etag>'],
  [/\b[0-9a-f]{8}\b/g, '<short id>'],
  [/\b[0-9a-f]{12}\b/g, '<key id>'],
  [/\b\d+(\.\d+)? ?(ms|s|MB)\b/g, '<measured>'],
  [/PostgreSQL \d+(\.\d+)*/g, 'PostgreSQL <version>'],
  [/"(latency_ms|latencyMs|bytes)": ?\d+/g, '"$1": <measured>'],
  [/[A-Za-z0-9_-]{43}=/g, '<key>'],
  [/ {2,}/g, '  '],
  [/-{3,}/g, '---'],
];

const normalizedLines = (text: string): string[] =>
  VARYING.reduce((rest, [pattern, name]) => rest.replace(pattern, name), text)
    .split('\n')
    .map((line) => line.trimEnd())
    .filter((line) => line !== '' && line !== '^C');

/** Whether the output of a command equals that of the page, except for times, ids and column widths. */
export function agrees(documented: string, printed: string): boolean {
  const [expected, actual] = [normalizedLines(documented), normalizedLines(printed)];
  const matches = (w: number, h: number): boolean => {
    for (; w < expected.length; w++, h++) {
      if (expected[w] === '…')
        return Array.from({ length: actual.length - h + 1 }).some((_, skip) => matches(w + 1, h + skip));
      if (expected[w] !== actual[h]) return false;
    }
    return h === actual.length;
  };
  return matches(0, 0);
}

/** A shell in which the steps of one page run. */
export class Shell {
  private readonly servers: ChildProcess[] = [];
  /** Background jobs, with the length of the output that has been returned. */
  private readonly jobs: { readonly log: string; shown: number }[] = [];

  private constructor(
    private readonly directory: string,
    private readonly bash: ChildProcess,
    private readonly replacements: ReadonlyMap<string, string>,
  ) {}

  /**
   * @param env settings that the page requires.
   * @param replacements the real values of texts in the page, for example of the database URL that it shows.
   */
  static async start(
    env: Readonly<Record<string, string>> = {},
    replacements: ReadonlyMap<string, string> = new Map(),
  ): Promise<Shell> {
    const directory = await mkdtemp(join(tmpdir(), 'agentllm-docs-'));
    const bin = join(directory, '.bin');
    await mkdir(bin);
    await writeFile(
      join(bin, 'agentllm'),
      `#!/bin/sh\nexec '${process.execPath}' --liftoff-only '${packageFile('dist/src/cli/agentllm.js')}' "$@"\n`,
      {
        mode: 0o755,
      },
    );
    const [grpc, http] = [await freePort(), await freePort()];
    const path = [bin, packageFile('node_modules/.bin'), packageFile('.cache/bin'), `${process.env['HOME']}/go/bin`];
    const bash = spawn('bash', ['--noprofile', '--norc'], {
      cwd: directory,
      stdio: ['pipe', 'pipe', 'inherit'],
      env: {
        HOME: directory,
        LANG: 'C.UTF-8',
        TZ: 'UTC',
        PATH: `${path.join(':')}:${process.env['PATH']}`,
        AGENTLLM_ADDRESS: `127.0.0.1:${grpc}`,
        GRPC_ADDRESS: `127.0.0.1:${grpc}`,
        HTTP_ADDRESS: `127.0.0.1:${http}`,
        LOG_LEVEL: 'silent',
        ...env,
      },
    });
    const all = new Map([
      ...replacements,
      ['127.0.0.1:50051', `127.0.0.1:${grpc}`],
      ['127.0.0.1:8081', `127.0.0.1:${http}`],
    ]);
    return new Shell(directory, bash, all);
  }

  /** The path of a file in the directory of the page. */
  path(name: string): string {
    return join(this.directory, name);
  }

  /** Runs a step and returns its output on both streams. */
  async run({ command, output }: Step): Promise<string> {
    if (/(^|\s)agentllm serve(\s|$)/.test(command)) return this.serve(command, /^\^C$/m.test(output));
    const [, job] = /^(.*) &$/s.exec(command) ?? [];
    if (job !== undefined) return this.startJob(job, output);
    const runCommand = () => this.runScript(`{ ${this.withRealValues(command)}\n} 2>&1 </dev/null`);
    let printed = await runCommand();
    const until = performance.now() + SILENCE_MS;
    while (UPDATED_LATER.test(command) && !agrees(output, this.withShownValues(printed)) && performance.now() < until) {
      await delay(POLL_MS);
      printed = await runCommand();
    }
    return this.withOutputOfJobs(printed, output);
  }

  private async startJob(command: string, expected: string): Promise<string> {
    const log = join(this.directory, `.job-${this.jobs.length}`);
    // Before the job starts, which creates the file at some later time.
    await writeFile(log, '');
    // In a separate process group, because the job can have child processes.
    await this.runScript(`set -m; { ${this.withRealValues(command)}\n} >${log} 2>&1 </dev/null & set +m`);
    this.jobs.push({ log, shown: 0 });
    return this.withOutputOfJobs('', expected);
  }

  /**
   * Adds the new output of all jobs, as soon as the whole is the expected output. Output that differs is returned when it
   * has stopped growing. Output that arrives too late belongs to the next step, and differs there.
   */
  private async withOutputOfJobs(printed: string, expected: string): Promise<string> {
    let output = printed + this.readJobs();
    let changedAt = performance.now();
    while (this.jobs.length > 0 && !agrees(expected, this.withShownValues(output))) {
      await delay(POLL_MS);
      const added = this.readJobs();
      if (added !== '') changedAt = performance.now();
      else if (performance.now() - changedAt > SILENCE_MS) break;
      output += added;
    }
    return this.withShownValues(output);
  }

  /** The output of the jobs since the last time. */
  private readJobs(): string {
    return this.jobs
      .map((job) => {
        const added = readFileSync(job.log, 'utf8').slice(job.shown);
        job.shown += added.length;
        return added;
      })
      .join('');
  }

  private async serve(command: string, interrupted: boolean): Promise<string> {
    const log = join(this.directory, `.serve-${this.servers.length}`);
    const pid = (
      await this.runScript(`{ exec ${withEnv(this.withRealValues(command))}; } >${log} 2>&1 </dev/null & echo $!`)
    ).trim();
    const waitForStart = `for i in $(seq 600); do grep -q 'stop      Ctrl-C' ${log} && break; kill -0 ${pid} 2>/dev/null || break; sleep 0.1; done; cat ${log}`;
    const started = await this.runScript(waitForStart);
    if (!interrupted) return this.withShownValues(started);
    return this.withShownValues(await this.runScript(`kill -INT ${pid}; wait ${pid}; cat ${log}`));
  }

  async end(): Promise<void> {
    const stop = 'for job in $(jobs -p); do kill -- -$job 2>/dev/null || kill $job; done; wait';
    await this.runScript(`{ ${stop}; } 2>/dev/null`).catch(() => undefined);
    this.bash.stdin?.end();
    if (this.bash.exitCode === null) await once(this.bash, 'close');
    await rm(this.directory, { recursive: true, force: true });
  }

  private readonly withRealValues = (text: string): string =>
    [...this.replacements].reduce((rest, [shown, real]) => rest.replaceAll(shown, real), text);

  private readonly withShownValues = (text: string): string =>
    [...this.replacements]
      .reduce((rest, [shown, real]) => rest.replaceAll(real, shown), text)
      .replaceAll(`${this.directory}/`, '')
      .replaceAll(this.directory, '.');

  /** Runs a script in the shell and returns its output. */
  private async runScript(script: string): Promise<string> {
    const endMarker = `__done_${Math.random().toString(36).slice(2)}__`;
    let printed = '';
    const done = new Promise<void>((resolve, reject) => {
      const onClose = () => reject(new Error(`the shell ended:\n${printed}`));
      const onData = (chunk: Buffer) => {
        printed += chunk;
        if (!printed.includes(endMarker)) return;
        this.bash.stdout?.off('data', onData);
        this.bash.off('close', onClose);
        resolve();
      };
      this.bash.stdout?.on('data', onData);
      this.bash.once('close', onClose);
    });
    this.bash.stdin?.write(`${script}\nprintf '%s\\n' ${endMarker}\n`);
    await done;
    return printed.slice(0, printed.indexOf(endMarker));
  }
}

/** How long a job that has not printed the expected output may be silent. */
const SILENCE_MS = 20_000;
const POLL_MS = 20;
/** Commands that print what the service updates once a second. They are repeated until they print what is documented. */
const UPDATED_LATER = /^agentllm watchers\b/;

/** Prefixes a command that begins with an assignment with `env`, because `exec` does not accept assignments. */
const withEnv = (command: string) => (/^\w+=/.test(command) ? `env ${command}` : command);

/** Whether a program is installed. */
export function has(program: string): boolean {
  try {
    execFileSync('sh', ['-c', `command -v ${program}`], {
      env: { PATH: `${packageFile('.cache/bin')}:${process.env['HOME']}/go/bin:${process.env['PATH']}` },
      stdio: 'ignore',
    });
    return true;
  } catch {
    return false;
  }
}
