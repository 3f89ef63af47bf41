import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { packageFile } from '../../src/package.js';
import { startCommand, useDirectories } from '../support/command.js';
import { until } from '../support/until.js';
import { isListening, PROGRAM, serviceEnvironment, startGroup, untilListening } from './support.js';

/* How the service stops on signals, also when other programs start it. */

const directory = useDirectories();

describe('a service that another process starts', () => {
  it('ends and frees its port when `npm start` receives SIGTERM', async () => {
    const { port, env } = await serviceEnvironment(await directory.started());
    // Without the build step, because other tests use the build.
    const npm = startGroup('npm', ['start', '--ignore-scripts'], {
      cwd: packageFile('.'),
      env: { ...env, npm_config_ignore_scripts: 'true' },
    });
    const ended = once(npm, 'exit');
    await untilListening(port, true);
    npm.kill('SIGTERM');
    await untilListening(port, false);
    await ended;
  });

  it('ends when SIGTERM ends an npm whose shell does not forward signals', async () => {
    const project = await mkdtemp(join(tmpdir(), 'agentllm-test-'));
    try {
      const scripts = { start: `${process.execPath} ${PROGRAM} serve; echo ended` };
      await writeFile(join(project, 'package.json'), JSON.stringify({ name: 'of-a-user', version: '1.0.0', scripts }));
      const { port, env } = await serviceEnvironment(await directory.started());
      const npm = startGroup('npm', ['start'], { cwd: project, env });
      await untilListening(port, true);
      npm.kill('SIGTERM');
      await untilListening(port, false);
    } finally {
      await rm(project, { recursive: true, force: true });
    }
  });

  it('ends when its npm parent is killed', async () => {
    const { port, env } = await serviceEnvironment(await directory.started());
    const shell = startGroup('sh', ['-c', `${process.execPath} ${PROGRAM} serve; echo ended`], {
      env: { ...env, npm_lifecycle_event: 'start' },
    });
    await untilListening(port, true);
    shell.kill('SIGKILL');
    await untilListening(port, false);
  });

  it('keeps running when a parent other than npm ends', async () => {
    const { port, env } = await serviceEnvironment(await directory.started());
    const shell = startGroup('sh', ['-c', `${process.execPath} ${PROGRAM} serve & echo started`], { env });
    await once(shell, 'exit');
    await untilListening(port, true);
    // A service that npm started looks for its parent every half second.
    await delay(2_000);
    expect(await isListening(port)).toBe(true);
  });
});

describe('a signal', () => {
  it.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('%s stops the service cleanly', async (signal) => {
    const running = await startCommand({ DATA_DIR: await directory.started() });
    running.child.kill(signal);
    const { code, stderr } = await running.ended;
    expect(code).toBe(0);
    expect(stderr).toContain(`agentllm is stopping (${signal})`);
    expect(stderr).toContain('agentllm has stopped');
  });

  it('SIGTERM stops a service that is process 1', async () => {
    const { port, env } = await serviceEnvironment(await directory.started());
    // A separate PID namespace, as in a container. The test is skipped when the user may not create one.
    const args = ['--pid', '--fork', process.execPath, PROGRAM, 'serve'];
    const namespace = startGroup('unshare', args, { env, stdio: ['ignore', 'ignore', 'pipe'] });
    let stderr = '';
    namespace.stderr?.on('data', (chunk) => {
      stderr += chunk;
    });
    const ended = once(namespace, 'close');
    await Promise.race([untilListening(port, true).then(() => until(() => stderr.includes('"pid":'))), ended]);
    if (/unshare.*(not permitted|failed)/.test(stderr)) return;
    expect(stderr).toContain('"pid":1,');
    const { pid } = namespace;
    const [child] = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).split(' ');
    process.kill(Number(child), 'SIGTERM');
    expect((await ended)[0]).toBe(0);
    await untilListening(port, false);
    expect(stderr).toContain('agentllm has stopped');
  });
});
