import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.common.utils.Exit;

/** Runs main methods one after the other. A line of input is CLASS STDIN ARG..., an answer STATUS STDOUT STDERR; all in base64. */
public final class Runner {
    private static final int PATIENCE_MS = 90_000;

    /** Takes the place of exit within a tool. */
    private static final class Exited extends Error {
        Exited() {
            super(null, null, false, false);
        }
    }

    /** Scala and the loggers keep the stream that they met first, so this one stays and its target changes. */
    private static final class Switch extends OutputStream {
        private final AtomicReference<OutputStream> target = new AtomicReference<>(OutputStream.nullOutputStream());

        @Override
        public void write(int one) throws IOException {
            target.get().write(one);
        }

        @Override
        public void write(byte[] bytes, int offset, int length) throws IOException {
            target.get().write(bytes, offset, length);
        }
    }

    public static void main(String[] unused) throws Exception {
        PrintStream answers = System.out;
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        Switch output = new Switch();
        Switch errors = new Switch();
        System.setOut(stream(output));
        System.setErr(stream(errors));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            String[] words = Arrays.stream(line.split(" ")).map(Runner::decode).toArray(String[]::new);
            ByteArrayOutputStream written = new ByteArrayOutputStream();
            ByteArrayOutputStream complained = new ByteArrayOutputStream();
            output.target.set(written);
            errors.target.set(complained);
            System.setIn(new ByteArrayInputStream(words[1].getBytes(StandardCharsets.UTF_8)));
            Runnable silence = () -> {
                output.target.set(OutputStream.nullOutputStream());
                errors.target.set(OutputStream.nullOutputStream());
            };
            int status = run(words[0], Arrays.copyOfRange(words, 2, words.length), silence);
            silence.run();
            answers.println(status + " " + encode(written.toByteArray()) + " " + encode(complained.toByteArray()));
            answers.flush();
        }
        Runtime.getRuntime().halt(0);
    }

    /** A tool may close what it writes to; the next one writes to it again. */
    private static PrintStream stream(OutputStream target) {
        return new PrintStream(target, true, StandardCharsets.UTF_8) {
            @Override
            public void close() {
                flush();
            }
        };
    }

    private static int run(String className, String[] args, Runnable silence) throws InterruptedException {
        AtomicReference<Integer> status = new AtomicReference<>();
        List<Runnable> atExit = Collections.synchronizedList(new ArrayList<>());
        // What was written after an exit would not have been: tools catch what stops them here.
        Exit.Procedure leave = (code, message) -> {
            status.compareAndSet(null, code);
            silence.run();
            throw new Exited();
        };
        Exit.setExitProcedure(leave);
        Exit.setHaltProcedure(leave);
        Exit.setShutdownHookAdder((name, hook) -> atExit.add(hook));
        Thread thread = new Thread(() -> {
            status.compareAndSet(null, call(className, args));
            for (Runnable hook : atExit) {
                hook.run();
            }
        }, className);
        thread.setDaemon(true);
        thread.start();
        thread.join(PATIENCE_MS);
        if (thread.isAlive()) {
            for (StackTraceElement frame : thread.getStackTrace()) {
                System.err.println("still at " + frame);
            }
            thread.interrupt();
            return -1;
        }
        return status.get();
    }

    private static int call(String className, String[] args) {
        try {
            Class.forName(className).getMethod("main", String[].class).invoke(null, (Object) args);
            return 0;
        } catch (InvocationTargetException failure) {
            // As the virtual machine says it when a main method fails.
            System.err.print("Exception in thread \"main\" ");
            failure.getCause().printStackTrace();
            return 1;
        } catch (ReflectiveOperationException failure) {
            failure.printStackTrace();
            return 2;
        }
    }

    private static String decode(String word) {
        return word.equals("-") ? "" : new String(Base64.getDecoder().decode(word), StandardCharsets.UTF_8);
    }

    private static String encode(byte[] bytes) {
        return bytes.length == 0 ? "-" : Base64.getEncoder().encodeToString(bytes);
    }
}
